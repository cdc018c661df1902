//! TLS between the tasks of a fleet: each shows the other one a certificate with the same name.

use crate::settings::{FLEET_CIDRS, PEER_CA_FILE, PEER_CERT_FILE, PEER_KEY_FILE, PEER_SAN, SettingError};
use crate::tls::{LOG, Names, Tls, missing, path};
use std::ffi::OsString;
use std::path::Path;

/// The file in the image that tells Envoy where the task's certificate and key are.
pub const SECRET: &str = "/run/pixell-envoy/peer-tls.yaml";
/// The file in the image that tells Envoy where the CA of the tasks is, and which name it must have certified.
pub const CA_SECRET: &str = "/run/pixell-envoy/peer-tls-ca.yaml";

static NAMES: Names = Names {
    certificate: PEER_CERT_FILE,
    key: PEER_KEY_FILE,
    ca: PEER_CA_FILE,
    secrets: [("pixell_peer_tls", SECRET), ("pixell_peer_tls_ca", CA_SECRET)],
};

/// The files of TLS between tasks, and the name in their certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    files: Tls,
    name: String,
}

impl PeerTls {
    /// Reads the settings that `raw` returns by name; `None` if there are none of them.
    pub(crate) fn resolve(raw: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, SettingError> {
        const ALL: [&str; 4] = [PEER_CERT_FILE, PEER_KEY_FILE, PEER_CA_FILE, PEER_SAN];
        let Some(set) = ALL.into_iter().find(|name| raw(name).is_some()) else { return Ok(None) };
        if raw(FLEET_CIDRS).is_none() {
            let expected = format!("the networks of the other tasks, because {set} is set");
            return Err(SettingError::new(FLEET_CIDRS, OsString::new(), &expected));
        }
        let file = |name, what| path(name, raw(name).ok_or_else(|| missing(name, set))?, what);
        let files = Tls {
            names: &NAMES,
            certificate: file(PEER_CERT_FILE, "a file with the task's certificates")?,
            key: file(PEER_KEY_FILE, "a file with the task's private key")?,
            client_ca: Some(file(PEER_CA_FILE, "a file with the CA certificates of the tasks")?),
            san: None,
        };
        let name = raw(PEER_SAN).unwrap_or_default();
        match name.to_str().filter(|name| is_host(name)) {
            Some(host) => {
                let name = host.to_owned();
                Ok(Some(Self { files: Tls { san: Some(name.clone()), ..files }, name }))
            }
            None => {
                let expected = "the DNS name in the certificates of all tasks, in lower case, such as peer.pixell.internal";
                Err(SettingError::new(PEER_SAN, name, expected))
            }
        }
    }

    /// TLS of the listener for peers. Its clients need a certificate.
    pub(crate) fn listener(&self) -> String {
        format!("{}require_client_certificate: true, {} }} }}", context("Downstream"), self.common())
    }

    /// TLS of the cluster of the peers.
    pub(crate) fn cluster(&self) -> String {
        format!("{}sni: \"{}\", {} }} }}", context("Upstream"), self.name, self.common())
    }

    /// The log of the listener, which tells handshakes that failed.
    pub(crate) const fn log() -> &'static str {
        LOG
    }

    fn common(&self) -> String {
        let [certificate, ca] = self.files.references();
        format!(
            "common_tls_context: {{ alpn_protocols: [h2], tls_params: {{ tls_minimum_protocol_version: TLSv1_3, \
             tls_maximum_protocol_version: TLSv1_3 }}, tls_certificate_sds_secret_configs: [{certificate}], \
             validation_context_sds_secret_config: {ca} }}"
        )
    }

    /// The files that the configuration names, by their paths in the image.
    pub(crate) fn secrets(&self) -> Vec<(&'static str, String)> {
        self.files.secrets()
    }

    /// As [`Tls::check`].
    pub(crate) fn check(&self, envoy: &Path) -> Result<(), String> {
        self.files.check(envoy)
    }

    /// As [`Tls::warning`].
    #[must_use]
    pub(crate) fn warning(&self) -> Option<String> {
        self.files.warning()
    }
}

/// The beginning of a transport socket.
fn context(side: &str) -> String {
    format!(
        "transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext, "
    )
}

/// Whether a text is a host name in lower case (RFC 1123, 2.1). A wildcard is not: all tasks have the same name.
fn is_host(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, &str); 5] = [
        (FLEET_CIDRS, "10.0.0.0/8"),
        (PEER_CERT_FILE, "/p/c.pem"),
        (PEER_KEY_FILE, "/p/k.pem"),
        (PEER_CA_FILE, "/p/ca.pem"),
        (PEER_SAN, "peer.pixell.internal"),
    ];

    fn resolve(vars: &[(&str, &str)]) -> Result<Option<PeerTls>, String> {
        let raw = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        PeerTls::resolve(raw).map_err(|error| error.to_string())
    }

    #[test]
    fn all_four_are_set_or_none() {
        assert_eq!(resolve(&ALL[..1]), Ok(None));
        assert!(matches!(resolve(&ALL), Ok(Some(_))));
        for (left_out, (name, _)) in ALL.into_iter().enumerate().skip(1) {
            let some: Vec<_> = ALL.into_iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, var)| var).collect();
            let error = resolve(&some).unwrap_err();
            assert!(error.starts_with(&format!("{name} is \"\": expected")), "{error}");
        }
        let error = resolve(&ALL[1..]).unwrap_err();
        assert_eq!(
            error,
            "PIXELL_FLEET_CIDRS is \"\": expected the networks of the other tasks, because PIXELL_PEER_CERT_FILE is set"
        );
        for san in ["*.pixell.internal", "Peer", "a..b", "a b", "10.0.0.1:1", "a\"", "a_b"] {
            let mut vars = ALL;
            vars[4].1 = san;
            assert!(resolve(&vars).is_err(), "{san}");
        }
    }

    #[test]
    fn both_sides_ask_for_the_exact_name() {
        let tls = resolve(&ALL).unwrap().unwrap();
        let secrets = tls.secrets();
        let (_, ca) = secrets.iter().find(|(path, _)| *path == CA_SECRET).unwrap();
        assert!(ca.contains(r#"matcher: { safe_regex: { regex: "peer\\.pixell\\.internal" } }"#), "{ca}");
        for side in [tls.listener(), tls.cluster()] {
            assert!(side.contains(CA_SECRET) && side.contains(SECRET), "{side}");
        }
        assert!(tls.listener().contains("require_client_certificate: true"));
        assert!(tls.cluster().contains("sni: \"peer.pixell.internal\""));
    }
}
