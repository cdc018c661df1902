//! The fleet: other tasks to which requests for their deployments are forwarded.

use crate::configuration::{ADMIN_PLACE, Edit};
use crate::peer_tls::PeerTls;
use crate::peers::Around;
use pixell_core::cidr::Cidr;

/// The form of the setting, for messages.
pub const EXPECTED: &str = "the networks of the other tasks, separated by commas, such as 10.0.1.0/24,10.0.2.0/24";

/// The settings of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// The networks that peers are in; at least one.
    pub peer_cidrs: Vec<Cidr>,
    /// TLS between the tasks; `None` for none.
    pub tls: Option<PeerTls>,
}

impl Fleet {
    /// Parses the list of networks.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let peer_cidrs = text.split(',').map(|cidr| cidr.parse().ok()).collect::<Option<_>>()?;
        Some(Self { peer_cidrs, tls: None })
    }

    /// The changes of the configuration.
    pub(crate) fn edits(&self, around: Around<'_>) -> Vec<Edit> {
        let mut edits = self.data_path(around);
        edits.extend([self.route_api(), Self::member()]);
        edits
    }

    /// The route API takes peers in these networks.
    fn route_api(&self) -> Edit {
        let cidrs: Vec<_> =
            self.peer_cidrs.iter().map(|cidr| format!("\"{}/{}\"", cidr.address(), cidr.prefix_len())).collect();
        let text = format!("{ADMIN_PLACE}, \"fleet\": {{\"peer_cidrs\": [{}]}}", cidrs.join(", "));
        Edit { place: ADMIN_PLACE, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        let fleet = Fleet::parse("10.0.1.0/24,fd00::/8").unwrap();
        assert_eq!(fleet.route_api().text, "\"role\": \"admin\", \"fleet\": {\"peer_cidrs\": [\"10.0.1.0/24\", \"fd00::/8\"]}");
        for text in ["", ",", "10.0.1.0/24,", "10.0.1.0/24 ,10.0.2.0/24", "10.0.1.7", "10.0.1.7/24"] {
            assert_eq!(Fleet::parse(text), None, "{text}");
        }
    }
}
