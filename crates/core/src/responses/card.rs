//! An A2A agent card: the URLs of its interfaces are replaced by those under which the client reaches them.
//!
//! Only the text of these strings is replaced. So the order of the members, unknown members, duplicate ones, the spelling of numbers and the
//! white space stay as the agent wrote them.

use super::Unchanged;
use super::url::{Authority, Target, default_port};
use super::way::Reached;
use crate::addressing::Addressing;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Largest card that is rewritten, in bytes.
pub const LARGEST: usize = 1 << 20;

/// Most interfaces of a card that is rewritten, so that no card keeps a worker busy for long.
pub const MOST_INTERFACES: usize = 1_000;

/// The card as the client gets it; `None` if no URL in it points to the agent.
///
/// # Errors
/// Why it is left as it is.
pub fn rewritten(text: &[u8], reached: &Reached, addressing: &Addressing) -> Result<Option<Vec<u8>>, Unchanged> {
    let client = reached.client().ok_or(Unchanged::OriginNotAllowed)?;
    let card: &RawValue = serde_json::from_slice(text).map_err(|_| Unchanged::Invalid)?;
    let members = Members::of(card).ok_or(Unchanged::Invalid)?;
    if members.all("signatures").any(is_signed) {
        return Err(Unchanged::Signed);
    }
    let mut interfaces = vec![(members.clone(), "preferredTransport")];
    for name in ["additionalInterfaces", "supportedInterfaces"] {
        for list in members.all(name).filter_map(|list| serde_json::from_str::<Items<'_>>(list.get()).ok()) {
            interfaces.extend(list.0.into_iter().filter_map(|item| Some((Members::of(item)?, "transport"))));
        }
    }
    let urls: usize = interfaces.iter().map(|(interface, _)| interface.all("url").count()).sum();
    if interfaces.len().max(urls) > MOST_INTERFACES {
        return Err(Unchanged::TooLarge);
    }
    let mut changes: Vec<(Range<usize>, String)> = Vec::new();
    for (interface, transport) in &interfaces {
        let mut bindings = interface.all(transport).chain(interface.all("protocolBinding")).filter_map(string);
        let is_grpc = bindings.any(|name| name.eq_ignore_ascii_case("grpc"));
        for url in interface.all("url") {
            let new = string(url).and_then(|old| {
                let new = if is_grpc { grpc(&old, reached, &client, addressing) } else { None };
                new.or_else(|| http(&old, reached, &client, addressing)).filter(|new| *new != old)
            });
            if let (Some(new), Some(place)) = (new, place(url.get(), text)) {
                changes.push((place, crate::json::quote(&new)));
            }
        }
    }
    changes.sort_by_key(|(place, _)| place.start);
    let mut written = Vec::with_capacity(text.len() + 64 * changes.len());
    let mut end = 0;
    for (place, new) in &changes {
        written.extend_from_slice(text.get(end..place.start).unwrap_or_default());
        written.extend_from_slice(new.as_bytes());
        end = place.end;
    }
    written.extend_from_slice(text.get(end..).unwrap_or_default());
    Ok((!changes.is_empty()).then_some(written))
}

/// The URL of an interface over HTTP; `None` if it is not the agent's.
fn http(url: &str, reached: &Reached, client: &Authority<'_>, addressing: &Addressing) -> Option<String> {
    let Target::Absolute { authority, port, rest, .. } = Target::of(url) else { return None };
    let port = port_of_agent(&authority, port, reached, client)?;
    Some(reached.origin() + &reached.back(rest, port, addressing)?)
}

/// The target of a gRPC interface, `host:port` with or without a scheme; `None` if it is not the agent's, or has a path.
fn grpc(url: &str, reached: &Reached, client: &Authority<'_>, addressing: &Addressing) -> Option<String> {
    let (scheme, target) = url.split_once("://").map_or((None, url), |(scheme, target)| (Some(scheme), target));
    let target = target.strip_suffix('/').unwrap_or(target);
    let default = scheme.map_or_else(|| default_port(reached.scheme()), default_port);
    let authority = Authority::parse(target, default)?;
    port_of_agent(&authority, authority.port.unwrap_or(default), reached, client)?;
    let new = reached.grpc_target(client, addressing);
    Some(match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
            format!("{}://{new}", reached.scheme())
        }
        Some(_) => return None,
        None => new,
    })
}

/// The agent's port that an authority stands for; `None` if that is not the agent.
fn port_of_agent(authority: &Authority<'_>, port: u16, reached: &Reached, client: &Authority<'_>) -> Option<u16> {
    if authority.is_this_machine() { Some(reached.port_meant(port)) } else { authority.is(client).then_some(reached.port) }
}

/// Whether the member `signatures` says that somebody vouches for the card as it is.
fn is_signed(signatures: &RawValue) -> bool {
    let text: String = signatures.get().split_ascii_whitespace().collect();
    !matches!(text.as_str(), "null" | "[]")
}

fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// Where `part`, which lies in `whole`, lies in it.
fn place(part: &str, whole: &[u8]) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    Some(start..start.checked_add(part.len())?)
}

/// The members of an object as they are written, duplicates included.
#[derive(Clone)]
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    fn of(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a RawValue> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| *value)
    }
}

/// The items of an array.
struct Items<'a>(Vec<&'a RawValue>);

/// A string.
struct Text<'a>(Cow<'a, str>);

struct MembersVisitor;
struct ItemsVisitor;
struct TextVisitor;

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(members)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor).map(Items)
    }
}

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(text.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.to_owned().into())
    }
}

#[cfg(test)]
mod tests;
