//! Verdicts: what a host has to do with a request, and what a rejection looks like.

use super::{ID_HEADER, PREFIX_HEADER};
use crate::addressing::{Named, stripped};
use crate::hop::{ADDRESSED_HEADER, MISDIRECTED_HEADER};
use crate::problem::CONTENT_TYPE;
use crate::rejection::{Client, ERROR_HEADER, GrpcStatus, Rejection};
use crate::responses::CARD_REQUEST;
use crate::responses::way::Note;
use std::net::SocketAddr;

/// What a host has to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Set this port of 127.0.0.1 as the upstream, after these changes of the request.
    Forward {
        /// TCP port.
        port: u16,
        /// The deployment that the port was chosen for.
        id: Vec<u8>,
        /// What the agent receives differently from what the client sent; `None` if there is no difference.
        changes: Option<Box<Changes>>,
    },
    /// Send it to a peer instead.
    Hop(Box<Hop>),
    /// Leave the request as it is: it may go where it was sent before.
    Continue,
    /// Leave the attempt as it is, and set where the one after it goes.
    Next {
        /// Where the attempt after this one goes; `None` if it goes where this one does.
        address: Option<SocketAddr>,
        /// The trail so far ([`crate::hop::Trail`]).
        trail: Vec<u8>,
    },
    /// Respond.
    Reject(Rejected),
}

/// Changes of a request before it is forwarded, besides the decided id in [`super::ID_HEADER`]. A request that already has the id there needs
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// `:path`, if it changes.
    pub path: Option<Vec<u8>>,
    /// The value of [`super::PREFIX_HEADER`], if a prefix was removed.
    pub prefix: Option<Vec<u8>>,
    /// What the filter of responses needs to know ([`Note`]), if the path or the host addresses the request.
    pub note: Option<Vec<u8>>,
    /// Whether the request asks for an agent card, so that [`crate::responses::CARD_REQUEST`] applies.
    pub is_card: bool,
}

impl Changes {
    #[cold]
    pub(super) fn of(named: Named<'_>, note: &Note<'_>) -> Self {
        let (path, prefix) = match named {
            Named::ByPath { prefix, rest, strip: true, .. } => (Some(stripped(rest)), Some(prefix.to_vec())),
            _ => (None, None),
        };
        Self { path, prefix, note: Some(note.to_bytes()), is_card: note.is_card }
    }

    /// The headers that change, for a request whose decided id is `id`: each with its value, or `None` if it is removed.
    pub fn headers<'a>(&'a self, id: &'a [u8]) -> impl Iterator<Item = (&'static str, Option<&'a [u8]>)> {
        let set = [(ID_HEADER, Some(id)), (":path", self.path.as_deref()), (PREFIX_HEADER, self.prefix.as_deref())];
        let of_cards = CARD_REQUEST.into_iter().filter(|_| self.is_card);
        set.into_iter().filter(|(_, value)| value.is_some()).chain(of_cards)
    }
}

/// What a request gets before it goes to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where the peer takes requests of other tasks.
    pub address: SocketAddr,
    /// The value of [`super::ID_HEADER`], if the request does not have it already.
    pub id: Option<Vec<u8>>,
    /// Whether the path or the host names the agent, so that the peer has to strip and rewrite as this task would.
    pub is_addressed: bool,
    /// The trail so far ([`crate::hop::Trail`]).
    pub trail: Vec<u8>,
}

impl Hop {
    /// The headers that are set before the request goes there.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let addressed = self.is_addressed.then_some((ADDRESSED_HEADER, b"1".as_slice()));
        self.id.as_deref().map(|id| (ID_HEADER, id)).into_iter().chain(addressed)
    }
}

/// A rejection, ready to be counted, logged and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The code: the label of the metric, the reason in the log, and the value of the header [`ERROR_HEADER`].
    pub code: &'static str,
    /// What is sent.
    pub response: Response,
    /// What the request's [`super::ID_HEADER`] must say for the log and the trace, if it does not say it by itself: the id that the request names in
    /// another way, or nothing in place of one that does not count.
    pub id: Option<Vec<u8>>,
    /// Whether it tells a peer to try another task: then no client gets it.
    pub is_misdirected: bool,
}

/// A response in the client's protocol. Each has the header [`ERROR_HEADER`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// A trailers-only gRPC response.
    Grpc {
        /// The status.
        status: GrpcStatus,
        /// The message, not yet percent-encoded.
        message: String,
    },
    /// The same to a gRPC client that the host does not recognise as one, so that the response is written out.
    WrittenGrpc {
        /// The status.
        status: GrpcStatus,
        /// The message. Nothing in it needs to be percent-encoded.
        message: String,
    },
    /// A response with a problem document ([`CONTENT_TYPE`]).
    Http {
        /// The HTTP status.
        status: u16,
        /// The document.
        body: String,
    },
}

impl Rejected {
    /// The response to a client that speaks gRPC, or to any other one.
    #[must_use]
    pub fn new(rejection: Rejection<'_>, client: Client) -> Self {
        let (status, message) = (rejection.grpc_status(), rejection.message().into_owned());
        let response = match client {
            Client::Grpc => Response::Grpc { status, message },
            Client::GrpcWithParameter => Response::WrittenGrpc { status, message },
            Client::Http => Response::Http { status: rejection.http_status(), body: rejection.problem().to_json() + "\n" },
        };
        Self { code: rejection.code(), response, id: None, is_misdirected: false }
    }

    /// The headers of the response beside its status.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, &str)> {
        let mut headers = match &self.response {
            Response::Grpc { .. } => vec![(ERROR_HEADER, self.code)],
            Response::WrittenGrpc { status, message } => {
                let (status, content_type) = (("grpc-status", status.digits()), ("content-type", "application/grpc"));
                vec![content_type, status, ("grpc-message", message), (ERROR_HEADER, self.code)]
            }
            Response::Http { .. } => vec![("content-type", CONTENT_TYPE), (ERROR_HEADER, self.code)],
        };
        headers.extend(self.is_misdirected.then_some((MISDIRECTED_HEADER, "1")));
        headers
    }
}
