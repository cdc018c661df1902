//! The members of a JSON object, taken out one by one, so that what is left over can be refused.

use crate::json::{Json, pointer};
use crate::problem::Fault;

/// The members of one object and the place where its faults go.
pub struct Fields<'j, 'f> {
    parent: String,
    left: Vec<(&'j str, &'j Json)>,
    faults: &'f mut Vec<Fault>,
}

impl<'j, 'f> Fields<'j, 'f> {
    /// The members of `json`, which stands at the pointer `parent`. Duplicate keys and values that are no object are faults.
    pub fn of(json: &'j Json, parent: &str, faults: &'f mut Vec<Fault>) -> Self {
        let mut left: Vec<(&str, &Json)> = Vec::new();
        match json {
            Json::Object(members) => {
                for (key, value) in members {
                    if left.iter().any(|(earlier, _)| earlier == key) {
                        faults.push(Fault::new(pointer(parent, key), "is given twice"));
                    } else {
                        left.push((key, value));
                    }
                }
            }
            other => faults.push(Fault::new(parent, format!("must be an object, got {other}"))),
        }
        Self { parent: parent.to_owned(), left, faults }
    }

    /// Takes a member out, if it is there.
    pub fn take(&mut self, key: &str) -> Option<&'j Json> {
        let at = self.left.iter().position(|(found, _)| *found == key)?;
        Some(self.left.swap_remove(at).1)
    }

    /// Takes out an integer within `min` to `max`; anything else is a fault.
    pub fn integer(&mut self, key: &str, min: u64, max: u64) -> Option<u64> {
        let json = self.take(key)?;
        let value = json.as_integer().filter(|value| (min..=max).contains(value));
        if value.is_none() {
            self.fault(key, format!("must be an integer from {min} to {max}, got {json}"));
        }
        value
    }

    /// The members of a member.
    pub fn nested<'s>(&'s mut self, json: &'j Json, key: &str) -> Fields<'j, 's> {
        Fields::of(json, &pointer(&self.parent, key), self.faults)
    }

    /// Reports a fault of a member.
    pub fn fault(&mut self, key: &str, detail: impl Into<String>) {
        self.faults.push(Fault::new(pointer(&self.parent, key), detail));
    }

    /// Where faults go.
    pub fn faults(&mut self) -> &mut Vec<Fault> {
        self.faults
    }

    /// Reports every member that nobody took.
    pub fn refuse_the_rest(self) {
        for (key, _) in self.left {
            self.faults.push(Fault::new(pointer(&self.parent, key), "is not a known key"));
        }
    }
}
