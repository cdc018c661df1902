//! A route: where a deployment id leads.

/// A port on 127.0.0.1 and whether it takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// TCP port of the agent on 127.0.0.1; never 0.
    pub port: u16,
    /// Whether new requests are let through.
    pub state: RouteState,
}

/// Whether a route takes new requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteState {
    /// Requests are forwarded.
    #[default]
    Active,
    /// New requests are refused with 503; streams under way go on, and the port stays claimed.
    Draining,
}

impl RouteState {
    /// The name the route API uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "active" => Some(Self::Active),
            "draining" => Some(Self::Draining),
            _ => None,
        }
    }
}
