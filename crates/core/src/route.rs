//! A route: where a deployment id leads.

use crate::endpoint::EndpointName;
use std::collections::BTreeMap;

/// The ports of an agent on 127.0.0.1, and whether it takes new requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// TCP port of the endpoint `a2a`; never 0.
    pub port: u16,
    /// Whether new requests are let through.
    pub state: RouteState,
    /// The ports of the other endpoints, at most [`Route::MAX_ENDPOINTS`]; `a2a` is not among them.
    pub endpoints: BTreeMap<EndpointName, u16>,
}

impl Route {
    /// Most endpoints beside `a2a`.
    pub const MAX_ENDPOINTS: usize = 8;

    /// A route with one endpoint that takes requests.
    #[must_use]
    pub const fn active(port: u16) -> Self {
        Self { port, state: RouteState::Active, endpoints: BTreeMap::new() }
    }

    /// A route with one endpoint that takes no new requests.
    #[must_use]
    pub const fn draining(port: u16) -> Self {
        Self { port, state: RouteState::Draining, endpoints: BTreeMap::new() }
    }

    /// All ports of the route; one that serves several endpoints comes several times.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.port).chain(self.endpoints.values().copied())
    }

    /// The stored form, which [`StoredRoute`] reads:
    ///
    /// ```text
    /// state u8 | port u16 | for each other endpoint: length of the name u8, name, port u16     (little-endian)
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.state == RouteState::Draining)];
        bytes.extend_from_slice(&self.port.to_le_bytes());
        for (name, port) in &self.endpoints {
            let name = name.as_bytes();
            bytes.extend(u8::try_from(name.len()));
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&port.to_le_bytes());
        }
        bytes
    }
}

/// Whether a route takes new requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteState {
    /// Requests are forwarded.
    #[default]
    Active,
    /// New requests are rejected with 503; requests in flight go on, and the ports stay claimed.
    Draining,
}

impl RouteState {
    /// The name in the route API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "active" => Some(Self::Active),
            "draining" => Some(Self::Draining),
            _ => None,
        }
    }
}

/// A route as it is stored, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRoute<'a> {
    /// TCP port of the endpoint `a2a`.
    pub port: u16,
    /// Whether new requests are let through.
    pub state: RouteState,
    endpoints: &'a [u8],
}

impl<'a> StoredRoute<'a> {
    /// Reads what [`Route::to_bytes`] made; `None` for anything else.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[state, port_low, port_high], endpoints) = bytes.split_first_chunk()?;
        let state = match state {
            0 => RouteState::Active,
            1 => RouteState::Draining,
            _ => return None,
        };
        Some(Self { port: u16::from_le_bytes([port_low, port_high]), state, endpoints })
    }

    /// A route with one endpoint that takes requests.
    #[must_use]
    pub const fn active(port: u16) -> Self {
        Self { port, state: RouteState::Active, endpoints: &[] }
    }

    /// What [`Self::parse`] read.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let [low, high] = self.port.to_le_bytes();
        [&[u8::from(self.state == RouteState::Draining), low, high], self.endpoints].concat()
    }

    /// Whether `a2a` is the only endpoint.
    #[must_use]
    pub const fn has_one_endpoint(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The port of an endpoint; `None` if the route has none of that name.
    #[must_use]
    pub fn endpoint(&self, name: EndpointName) -> Option<u16> {
        if name == EndpointName::A2A {
            return Some(self.port);
        }
        self.endpoints().find(|(found, _)| *found == name.as_bytes()).map(|(_, port)| port)
    }

    /// All ports of the route; one that serves several endpoints comes several times.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<'a> {
        std::iter::once(self.port).chain(self.endpoints().map(|(_, port)| port))
    }

    /// The endpoints on a port.
    #[must_use]
    pub fn names_of(&self, port: u16) -> Vec<EndpointName> {
        let others = self.endpoints().filter(|(_, own)| *own == port).filter_map(|(name, _)| EndpointName::parse(name).ok());
        (self.port == port).then_some(EndpointName::A2A).into_iter().chain(others).collect()
    }

    /// The route as a value of its own.
    #[must_use]
    pub fn to_route(&self) -> Route {
        let endpoints = self.endpoints().filter_map(|(name, port)| Some((EndpointName::parse(name).ok()?, port)));
        Route { port: self.port, state: self.state, endpoints: endpoints.collect() }
    }

    fn endpoints(&self) -> impl Iterator<Item = (&'a [u8], u16)> + use<'a> {
        let mut rest = self.endpoints;
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(*len))?;
            let (port, tail) = tail.split_first_chunk()?;
            rest = tail;
            Some((name, u16::from_le_bytes(*port)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn full() -> Route {
        let endpoints =
            (0..8).map(|n| (EndpointName::parse(format!("endpoint-number{n}").as_bytes()).expect("valid"), 2000 + n));
        Route { endpoints: endpoints.collect(), ..Route::draining(65535) }
    }

    #[test]
    fn is_read_as_it_was_written() {
        for route in [Route::active(1), Route::draining(50054), full()] {
            let bytes = route.to_bytes();
            assert!(bytes.len() <= 255, "a table's value has at most 255 bytes");
            let stored = StoredRoute::parse(&bytes).expect("parses");
            assert_eq!((stored.to_route(), stored.to_bytes()), (route.clone(), bytes.clone()));
            assert!(stored.ports().eq(route.ports()));
            assert_eq!(stored.endpoint(EndpointName::A2A), Some(route.port));
            for (name, port) in &route.endpoints {
                assert_eq!(stored.endpoint(*name), Some(*port));
            }
            assert_eq!(stored.endpoint(EndpointName::UI), None);
            assert_eq!(stored.names_of(route.port), [EndpointName::A2A]);
            for (name, port) in &route.endpoints {
                assert_eq!(stored.names_of(*port), [*name]);
            }
            assert_eq!(stored.names_of(7), []);
        }
    }

    #[test]
    fn damaged_bytes_are_no_route_or_fewer_endpoints() {
        let bytes = full().to_bytes();
        for cut in 0..bytes.len() {
            match StoredRoute::parse(&bytes[..cut]) {
                None => assert!(cut < 3),
                Some(route) => assert!(route.ports().count() <= 9),
            }
        }
        assert_eq!(StoredRoute::parse(&[2, 0, 0]), None);
    }
}
