//! What a route map may hold.

use crate::deployment_id::{DeploymentId, InvalidDeploymentId};
use crate::json::Json;
use crate::problem::{FieldError, FieldErrors};

/// The most routes a map can hold: a route has a port of its own, and there are this many.
pub const MOST_ROUTES: u64 = 65_535;

/// The limits of a route map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Lowest port; default 1024.
    pub min_port: u16,
    /// Highest port; default 65535.
    pub max_port: u16,
    /// Ports that are never routed to. Default: 50050, 50051 and 9901, which are Envoy's, and 50052, 8080 and 9090, which are PAR's.
    pub denied_ports: Vec<u16>,
    /// Most routes; 1 to [`MOST_ROUTES`]. Default 10,000.
    pub max_routes: usize,
    /// Longest id in bytes; 1 to 128. Default 128.
    pub max_id_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_port: 1024,
            max_port: 65535,
            denied_ports: vec![50050, 50051, 50052, 8080, 9090, 9901],
            max_routes: 10_000,
            max_id_bytes: DeploymentId::MAX_LEN,
        }
    }
}

impl Limits {
    /// A body that holds `max_routes` routes with the longest ids, indented by hand.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        4096 + self.max_routes * (self.max_id_bytes + 128)
    }
}

impl Limits {
    /// Parses an id that is to become a key of the map.
    ///
    /// # Errors
    /// [`InvalidDeploymentId`], also for an id that is longer than this configuration allows.
    pub fn parse_id<'b>(&self, bytes: &'b [u8]) -> Result<DeploymentId<'b>, IdError> {
        parse_id(bytes, self.max_id_bytes)
    }

    /// Parses a port that is to be routed to.
    pub fn parse_port(&self, json: &Json, at: &str, errors: &mut FieldErrors) -> Option<u16> {
        let port = json.as_integer().and_then(|port| u16::try_from(port).ok());
        let allowed = port.filter(|port| (self.min_port..=self.max_port).contains(port));
        match allowed {
            None => {
                let (min, max) = (self.min_port, self.max_port);
                errors.add(|| FieldError::new(at, format!("must be a port, an integer from {min} to {max}, got {json}")));
                None
            }
            Some(port) if self.denied_ports.contains(&port) => {
                let detail = || format!("port {port} is on the denied list; it belongs to Envoy or PAR, not to an agent");
                errors.add(|| FieldError::new(at, detail()));
                None
            }
            Some(port) => Some(port),
        }
    }
}

/// Parses an id of at most so many bytes that is to become a key of a map.
///
/// # Errors
/// [`IdError`]
pub fn parse_id(bytes: &[u8], most: usize) -> Result<DeploymentId<'_>, IdError> {
    let id = DeploymentId::parse(bytes).map_err(IdError::Invalid)?;
    if bytes.len() > most { Err(IdError::LongerThanConfigured { len: bytes.len(), most }) } else { Ok(id) }
}

/// Why some bytes cannot be a key of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// They are no id at all.
    Invalid(InvalidDeploymentId),
    /// They are an id, but a longer one than `max_id_bytes` allows.
    LongerThanConfigured {
        /// Bytes there are.
        len: usize,
        /// Bytes allowed.
        most: usize,
    },
}

impl std::fmt::Display for IdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::LongerThanConfigured { len, most } => {
                write!(f, "a deployment id has {len} bytes; the configuration allows {most}")
            }
        }
    }
}

impl std::error::Error for IdError {}
