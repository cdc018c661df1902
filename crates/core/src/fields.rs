//! The members of a JSON object, taken out one by one, so that what is left over can be rejected.

use crate::json::{Json, pointer};
use crate::problem::{FieldError, FieldErrors};

/// The members of one object and the place where its errors go.
pub struct Fields<'j, 'f> {
    parent: String,
    left: Vec<(&'j str, &'j Json)>,
    errors: &'f mut FieldErrors,
}

impl<'j, 'f> Fields<'j, 'f> {
    /// The members of `json`, which stands at the pointer `parent`. A value that is no object is an error.
    pub fn of(json: &'j Json, parent: &str, errors: &'f mut FieldErrors) -> Self {
        let left = match json {
            Json::Object(members) => members.iter().map(|(key, value)| (key.as_str(), value)).collect(),
            other => {
                errors.add(|| FieldError::new(parent, format!("must be an object, got {other}")));
                Vec::new()
            }
        };
        Self { parent: parent.to_owned(), left, errors }
    }

    /// Takes a member out, if it is there. One that is there several times is an error.
    ///
    /// Only the keys that are asked for are compared: a body may hold hundreds of thousands of members, and a worker that compared
    /// each with each would stand still for a minute.
    pub fn take(&mut self, key: &str) -> Option<&'j Json> {
        let mut taken = None;
        let mut repeated = false;
        self.left.retain(|(found, value)| {
            let wanted = *found == key;
            if wanted {
                repeated |= taken.is_some();
                taken = taken.or(Some(*value));
            }
            !wanted
        });
        if repeated {
            self.error(key, "is given twice");
        }
        taken
    }

    /// Takes out an integer within `min` to `max`; anything else is an error.
    pub fn integer(&mut self, key: &str, min: u64, max: u64) -> Option<u64> {
        let json = self.take(key)?;
        let value = json.as_integer().filter(|value| (min..=max).contains(value));
        if value.is_none() {
            self.error(key, format!("must be an integer from {min} to {max}, got {json}"));
        }
        value
    }

    /// The members of a member.
    pub fn nested<'s>(&'s mut self, json: &'j Json, key: &str) -> Fields<'j, 's> {
        Fields::of(json, &pointer(&self.parent, key), self.errors)
    }

    /// Reports an error of a member.
    pub fn error(&mut self, key: &str, detail: impl Into<String>) {
        self.errors.add(|| FieldError::new(pointer(&self.parent, key), detail));
    }

    /// The list that errors go into.
    pub fn errors(&mut self) -> &mut FieldErrors {
        self.errors
    }

    /// Reports every member that nobody took.
    pub fn reject_the_rest(self) {
        for (key, _) in self.left {
            self.errors.add(|| FieldError::new(pointer(&self.parent, key), "is not a known key"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_repeated_member_is_an_error_and_so_is_an_unknown_one() {
        let json = Json::parse(br#"{"a":1,"b":2,"a":3,"x":4,"x":5}"#).expect("JSON");
        let mut errors = FieldErrors::default();
        let mut fields = Fields::of(&json, "/p", &mut errors);
        assert_eq!(fields.take("a"), Some(&Json::Integer(1)));
        assert_eq!((fields.take("a"), fields.take("c")), (None, None));
        assert_eq!(fields.integer("b", 0, 2), Some(2));
        fields.reject_the_rest();
        let found: Vec<_> = errors.listed().iter().map(|error| (error.pointer.as_str(), error.detail.as_str())).collect();
        assert_eq!(found, [("/p/a", "is given twice"), ("/p/x", "is not a known key"), ("/p/x", "is not a known key")]);
    }

    // There is no clock on wasm32-unknown-unknown.
    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn many_members_take_no_longer_than_their_number() {
        let members: String = (0..200_000).map(|n| format!("\"k{n:x}\":0,")).collect();
        let json = Json::parse(format!("{{{members}\"z\":0}}").as_bytes()).expect("JSON");
        let started = std::time::Instant::now();
        let mut errors = FieldErrors::default();
        Fields::of(&json, "", &mut errors).reject_the_rest();
        assert_eq!(errors.total(), 200_001);
        // Each with each would be minutes.
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
