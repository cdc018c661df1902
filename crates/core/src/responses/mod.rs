//! Responses to requests whose path or host names the agent, changed if they would lead the client astray: an agent does not know the prefix
//! that was removed, nor the authority under which clients reach it.
//!
//! A host shows the request and the head of the response, and carries out the changes. The head goes to the client first. The body of an
//! agent card follows when all of it is there, or unchanged if it turns out too large ([`Card`]): Envoy cannot hold back a head until a body
//! above its own buffers has been changed.

pub mod card;
pub mod cookie;
pub mod origins;
pub mod url;
pub mod way;

use crate::addressing::Addressing;
use crate::unfinished::{Body, Unfinished};
use origins::ExternalOrigins;
use std::borrow::Cow;
use url::Target;
use way::{Note, Reached};

/// How many cards of the largest size may be arriving at a time.
const MOST_CARDS: usize = 16;

/// The head of a response, as its host shows it.
pub trait ResponseHost {
    /// What the data path noted about the request ([`way::Note`]); `None` if a header addresses it.
    fn note(&self) -> Option<Cow<'_, [u8]>>;

    /// The values of a header, one for each field.
    fn response(&self, name: &str) -> Vec<Cow<'_, [u8]>>;
}

/// A change of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// In place of all fields of that name.
    Set(&'static str, Vec<u8>),
    /// Beside them.
    Add(&'static str, Vec<u8>),
    /// None of them stays.
    Remove(&'static str),
}

/// Why a card passes unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// It is signed: a change would break the signature.
    Signed,
    /// It has a content coding, although the request asked for none.
    Encoded,
    /// It is above [`card::LARGEST`], or has more than [`card::MOST_INTERFACES`].
    TooLarge,
    /// It is not a JSON object.
    Invalid,
    /// The client's authority may not be written into URLs.
    OriginNotAllowed,
    /// Too many cards are arriving at a time.
    Overloaded,
}

impl Unchanged {
    /// Every reason, as the metric has it.
    pub const REASONS: [&'static str; 6] = ["signed", "encoded", "too_large", "invalid", "origin_not_allowed", "overloaded"];

    /// The reason, as the metric has it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        let [signed, encoded, too_large, invalid, origin, overloaded] = Self::REASONS;
        match self {
            Self::Signed => signed,
            Self::Encoded => encoded,
            Self::TooLarge => too_large,
            Self::Invalid => invalid,
            Self::OriginNotAllowed => origin,
            Self::Overloaded => overloaded,
        }
    }

    /// The line for the log.
    #[must_use]
    pub fn line(self, id: &str) -> String {
        let why = match self {
            Self::Signed => "it is signed",
            Self::Encoded => "it has a content-encoding, although the request asked for none",
            Self::TooLarge => "it is larger than 1 MiB or has more than 1,000 interfaces",
            Self::Invalid => "it is not a JSON object",
            Self::OriginNotAllowed => "the client's authority is not valid, or not one of the external origins",
            Self::Overloaded => "too many cards are arriving",
        };
        format!("the agent card of {id} passes unchanged, and its URLs may lead nowhere: {why}")
    }
}

/// What happens to a response.
#[derive(Debug, Default)]
pub struct Head {
    /// Changes of its headers, in their order.
    pub changes: Vec<Change>,
    /// If it is a card that passes unchanged: why, and whose.
    pub unchanged: Option<(Unchanged, String)>,
    /// If it is a card whose body has to be shown.
    pub card: Option<Card>,
}

/// What happens to a part of a card.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// It is held back: nothing is sent in its place.
    Hold,
    /// It is sent as it is.
    Pass,
    /// This is sent in its place.
    Replace(Vec<u8>),
}

/// A card that is arriving.
#[derive(Debug)]
pub struct Card {
    reached: Reached,
    /// What has arrived, and its place among all; `None` once the card passes unchanged.
    held: Option<(Vec<u8>, Body)>,
}

/// One configuration of what is done to responses.
#[derive(Debug)]
pub struct Responses {
    addressing: Addressing,
    origins: ExternalOrigins,
    unfinished: Unfinished,
}

/// Whether a path asks for an agent card, if the method is `GET`.
#[must_use]
pub fn is_card_path(path: &[u8]) -> bool {
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    [&b"/.well-known/agent-card.json"[..], b"/.well-known/agent.json"].iter().any(|end| path.ends_with(end))
}

/// The changes of a request for a card, so that the agent sends the whole card as it is. Without `te` no agent sends trailers; the whole body
/// would have to be sent before them.
pub const CARD_REQUEST: [(&str, Option<&[u8]>); 8] = [
    ("accept-encoding", Some(b"identity")),
    ("te", None),
    ("if-none-match", None),
    ("if-modified-since", None),
    ("if-match", None),
    ("if-unmodified-since", None),
    ("if-range", None),
    ("range", None),
];

impl Responses {
    /// What is done if requests name agents by this addressing, and only these origins may be written into URLs.
    #[must_use]
    pub fn new(addressing: Addressing, origins: ExternalOrigins) -> Self {
        Self { addressing, origins, unfinished: Unfinished::new(card::LARGEST, MOST_CARDS) }
    }

    /// What happens to the response, by its head.
    pub fn head(&self, host: &impl ResponseHost) -> Head {
        let mut head = Head::default();
        let Some(note) = host.note() else { return head };
        let Some(note) = Note::parse(&note) else { return head };
        let (locations, cookies) = (host.response("location"), host.response("set-cookie"));
        let service_worker = host.response("service-worker-allowed");
        if !note.is_card && !note.is_prefix_alone && locations.is_empty() && cookies.is_empty() && service_worker.is_empty() {
            return head;
        }
        let Some(reached) = Reached::of(&note, &self.addressing, &self.origins) else { return head };
        // If there are several, no client knows where to go.
        if let [location] = locations.as_slice()
            && let Some(new) = std::str::from_utf8(location).ok().and_then(|url| self.location(url, &reached))
        {
            head.changes.push(Change::Set("location", new.into()));
        }
        for (number, cookie) in cookies.iter().enumerate() {
            let scoped = cookie::scoped(cookie, &reached.prefix, &reached.path);
            head.changes.push(if number == 0 { Change::Set("set-cookie", scoped) } else { Change::Add("set-cookie", scoped) });
        }
        // Without this header, the scope of a service worker is the directory of its script (Service Workers, "Update"), which is here that of
        // all agents.
        if note.is_prefix_alone {
            head.changes.push(Change::Set("service-worker-allowed", format!("{}/", reached.prefix).into()));
        } else if !service_worker.is_empty() {
            head.changes.push(Change::Remove("service-worker-allowed"));
        }
        if note.is_card {
            self.card(reached, host, &mut head);
        }
        head
    }

    fn card(&self, reached: Reached, host: &impl ResponseHost, head: &mut Head) {
        let first = |name| host.response(name).first().map(|value| value.to_vec());
        let is_json = first("content-type").is_some_and(|value| is_json(&value));
        if first(":status").as_deref() != Some(b"200") || !is_json {
            return;
        }
        let length = first("content-length").and_then(|value| String::from_utf8(value).ok()?.parse::<u64>().ok());
        let is_plain =
            |value: &Cow<'_, [u8]>| value.trim_ascii().is_empty() || value.trim_ascii().eq_ignore_ascii_case(b"identity");
        let unchanged = if !host.response("content-encoding").iter().all(is_plain) {
            Unchanged::Encoded
        } else if length.is_some_and(|length| length > card::LARGEST as u64) {
            Unchanged::TooLarge
        } else if reached.client().is_none() {
            Unchanged::OriginNotAllowed
        } else {
            head.changes.extend(UNTRUE.map(Change::Remove));
            head.changes.push(Change::Set("cache-control", b"private, no-store".to_vec()));
            head.card = Some(Card { reached, held: Some((Vec::new(), self.unfinished.body())) });
            return;
        };
        head.unchanged = Some((unchanged, reached.id().to_owned()));
    }

    /// The Location that leads the client to what the agent means; `None` if it leads there by itself, or is not the agent's.
    fn location(&self, url: &str, reached: &Reached) -> Option<String> {
        let back = |path, port| reached.back(path, port, &self.addressing);
        let new = match Target::of(url) {
            Target::Path(path) => back(path, reached.port)?,
            // Relative to the client's URL, so that it holds whatever the client's authority is.
            Target::Absolute { authority, port, rest, .. } if authority.is_this_machine() && reached.is_own(port) => {
                Some(back(rest, port)?).filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned())
            }
            Target::Absolute { origin, authority, rest, .. }
                if reached.client().is_some_and(|client| authority.is(&client)) =>
            {
                origin.to_owned() + &back(rest, reached.port)?
            }
            Target::Absolute { .. } | Target::Foreign => return None,
        };
        (new != url).then_some(new)
    }
}

/// Headers that are no longer true of a card that may be changed, or that let a shared cache keep it.
const UNTRUE: [&str; 9] = [
    "content-length",
    "etag",
    "accept-ranges",
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
    "cdn-cache-control",
    "surrogate-control",
];

impl Card {
    /// A part of the body has arrived; `ends` if it is the last one. Gives what is sent in its place, and why the card passes unchanged, if
    /// it does.
    pub fn push(&mut self, part: &[u8], ends: bool, responses: &Responses) -> (Part, Option<(Unchanged, String)>) {
        let Some((body, place)) = &mut self.held else { return (Part::Pass, None) };
        let fits = body.len().saturating_add(part.len()) <= card::LARGEST;
        body.extend_from_slice(part);
        let written = if !fits {
            Err(Unchanged::TooLarge)
        } else if !place.grow(body.len()) {
            Err(Unchanged::Overloaded)
        } else if ends {
            card::rewritten(body, &self.reached, &responses.addressing)
        } else {
            return (Part::Hold, None);
        };
        let unchanged = written.as_ref().err().map(|unchanged| (*unchanged, self.reached.id().to_owned()));
        let body = self.held.take().map(|(body, _)| body).unwrap_or_default();
        (Part::Replace(written.ok().flatten().unwrap_or(body)), unchanged)
    }

    /// Whether something is held back that a response without an end would lose.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.held.as_ref().is_some_and(|(body, _)| !body.is_empty())
    }
}

/// Whether a content type is JSON (RFC 8259, RFC 6839), whatever its parameters.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    essence.ends_with(b"/json") || essence.ends_with(b"+json")
}

#[cfg(test)]
mod tests;
