//! TLS on the data path's port, and the files of any TLS: what they change in the configuration, and a check of them before Envoy starts.

use crate::configuration::Edit;
use crate::settings::{SettingError, TLS_CERT_FILE, TLS_CLIENT_CA_FILE, TLS_KEY_FILE};
use crate::shown;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Where TLS goes, in the filter chain of the data path.
pub const PLACE: &str = "# (TLS)";
/// Where the log of failed handshakes goes, in the data path's listener.
pub const LOG_PLACE: &str = "# (TLS log)";
/// The file in the image that tells Envoy where certificate and key are.
pub const SECRET: &str = "/run/pixell-envoy/tls.yaml";
/// The file in the image that tells Envoy where the clients' CA is.
pub const CLIENT_CA_SECRET: &str = "/run/pixell-envoy/tls-client-ca.yaml";

/// What the files of TLS are called.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The variable with the path of the certificates.
    pub(crate) certificate: &'static str,
    /// The variable with the path of the key.
    pub(crate) key: &'static str,
    /// The variable with the path of the CA certificates.
    pub(crate) ca: &'static str,
    /// The secrets, of certificate and key and of the CA: their names, which are also part of the names of Envoy's statistics, and files.
    pub(crate) secrets: [(&'static str, &'static str); 2],
}

const NAMES: Names = Names {
    certificate: TLS_CERT_FILE,
    key: TLS_KEY_FILE,
    ca: TLS_CLIENT_CA_FILE,
    secrets: [("pixell_tls", SECRET), ("pixell_tls_client_ca", CLIENT_CA_SECRET)],
};
const SECRET_TYPE: &str = "\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const CONTEXT_TYPE: &str = "\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
/// Longest file that is read, in bytes. A chain of four certificates has about 8 KiB, a bundle of all public CAs 220 KiB.
const MAX_BYTES: u64 = 1024 * 1024;

/// The files of TLS, all by absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub(crate) names: &'static Names,
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) client_ca: Option<String>,
    /// The DNS name that the certificate of the other side must have, of letters, digits, hyphens and dots; `None` for any.
    pub(crate) san: Option<String>,
}

impl Tls {
    /// Reads the settings that `raw` returns by name; `None` if TLS is off.
    pub(crate) fn resolve(raw: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, SettingError> {
        match (raw(TLS_CERT_FILE), raw(TLS_KEY_FILE), raw(TLS_CLIENT_CA_FILE)) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), ca) => Ok(Some(Self {
                names: &NAMES,
                san: None,
                certificate: path(TLS_CERT_FILE, certificate, "a file with the server's certificates")?,
                key: path(TLS_KEY_FILE, key, "a file with the server's private key")?,
                client_ca: ca
                    .map(|ca| path(TLS_CLIENT_CA_FILE, ca, "a file with the CA certificates of clients"))
                    .transpose()?,
            })),
            (Some(_), None, _) => Err(missing(TLS_KEY_FILE, TLS_CERT_FILE)),
            (None, Some(_), _) => Err(missing(TLS_CERT_FILE, TLS_KEY_FILE)),
            // The operator may believe that clients need a certificate.
            (None, None, Some(_)) => Err(missing(TLS_CERT_FILE, TLS_CLIENT_CA_FILE)),
        }
    }

    /// The changes of the configuration.
    pub(crate) fn edits(&self) -> [Edit; 2] {
        let [certificate, ca] = self.references();
        let (required, ca) = match self.client_ca {
            None => (false, String::new()),
            Some(_) => (true, format!(", validation_context_sds_secret_config: {ca}")),
        };
        let socket = format!(
            "transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ {CONTEXT_TYPE}, \
             require_client_certificate: {required}, common_tls_context: {{ alpn_protocols: [h2, http/1.1], \
             tls_params: {{ tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3 }}, \
             tls_certificate_sds_secret_configs: [{certificate}]{ca} }} }} }}"
        );
        [Edit { place: PLACE, text: socket }, Edit { place: LOG_PLACE, text: LOG.to_owned() }]
    }

    /// How a configuration names the secrets.
    pub(crate) fn references(&self) -> [String; 2] {
        self.names.secrets.map(|(name, path)| {
            format!("{{ name: {name}, sds_config: {{ resource_api_version: V3, path_config_source: {{ path: {path} }} }} }}")
        })
    }

    /// The files that the changed configuration names, by their paths in the image. They name the operator's files, which Envoy reads
    /// again when they change.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, String)> {
        let [(name, path), (ca_name, ca_path)] = self.names.secrets;
        let mut secret = format!(
            "resources:\n- {SECRET_TYPE}\n  name: {name}\n  tls_certificate:\n    certificate_chain: {{ filename: {} }}\n    \
             private_key: {{ filename: {} }}\n",
            quoted(&self.certificate),
            quoted(&self.key)
        );
        let (directory, other) = (watched(&self.certificate), watched(&self.key));
        // In two directories, Envoy looks in each for files that are moved there.
        if directory == other {
            let _ = writeln!(secret, "    watched_directory: {}", watch(&directory));
        }
        let mut secrets = vec![(path, secret)];
        if let Some(ca) = &self.client_ca {
            let directory = watch(&watched(ca));
            let san = self.san.as_ref().map_or_else(String::new, |san| {
                // Envoy takes a wildcard in the certificate for the name if the matcher is `exact`, and compares text if it is anything else.
                let name = quoted(&san.replace('.', "\\."));
                format!(
                    "    match_typed_subject_alt_names: [{{ san_type: DNS, matcher: {{ safe_regex: {{ regex: {name} }} }} }}]\n"
                )
            });
            let text = format!(
                "resources:\n- {SECRET_TYPE}\n  name: {ca_name}\n  validation_context:\n    trusted_ca: {{ filename: {} }}\n    \
                 watched_directory: {directory}\n{san}",
                quoted(ca)
            );
            secrets.push((ca_path, text));
        }
        secrets
    }

    /// Checks that the files can be read and that Envoy, whose binary is `envoy`, accepts them.
    ///
    /// # Errors
    /// A line that names the variable and the file. It holds nothing of what is in a file.
    pub fn check(&self, envoy: &Path) -> Result<(), String> {
        for (name, path) in self.files() {
            let error = |reason: String| format!("{name} is {}: expected a file in PEM, but {reason}", shown::path(path));
            let text = read(Path::new(path)).map_err(|error_| error(format!("it cannot be read: {error_}")))?;
            if !text.contains("-----BEGIN ") {
                return Err(error("it holds no PEM block".to_owned()));
            }
        }
        self.validate(envoy)
    }

    /// A warning if every user may read the key.
    #[must_use]
    pub(crate) fn warning(&self) -> Option<String> {
        crate::token::exposed(self.names.key, Path::new(&self.key))
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let ca = self.client_ca.iter().map(|ca| (self.names.ca, ca.as_str()));
        [(self.names.certificate, self.certificate.as_str()), (self.names.key, self.key.as_str())].into_iter().chain(ca)
    }

    /// Lets Envoy read the files, because it knows best which of them it accepts.
    fn validate(&self, envoy: &Path) -> Result<(), String> {
        let ca = self
            .client_ca
            .as_ref()
            .map_or_else(String::new, |ca| format!(", validation_context: {{ trusted_ca: {{ filename: {} }} }}", quoted(ca)));
        // The listener is never opened.
        let config = format!(
            "static_resources: {{ listeners: [{{ name: tls, address: {{ pipe: {{ path: /nonexistent }} }}, filter_chains: [{{ \
             filters: [{{ name: echo, typed_config: {{ \
             \"@type\": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo }} }}], \
             transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ {CONTEXT_TYPE}, common_tls_context: {{ \
             tls_certificates: [{{ certificate_chain: {{ filename: {} }}, private_key: {{ filename: {} }} }}]{ca} }} }} }} }}] }}] }}",
            quoted(&self.certificate),
            quoted(&self.key)
        );
        let mut command = Command::new(envoy);
        command.args(["--mode", "validate", "--log-level", "critical", "--config-yaml", &config]);
        let output = command.output().map_err(|error| format!("cannot run {}: {error}", envoy.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let files: Vec<_> = self.files().map(|(name, path)| format!("{name} is {}", shown::path(path))).collect();
        Err(format!("{}: {}", files.join(", "), reason(&said)))
    }
}

/// Why Envoy does not accept the files, from its output.
fn reason(said: &str) -> String {
    if said.contains("KEY_VALUES_MISMATCH") {
        return "the key does not belong to the first certificate".to_owned();
    }
    let line = said.lines().find(|line| line.contains("[critical]")).or_else(|| said.lines().next()).unwrap_or_default();
    let cause = line.split_once("configuration '': ").map_or(line, |(_, cause)| cause);
    format!("Envoy does not accept them: {cause}")
}

/// Reads the path of a file in PEM.
pub(crate) fn path(name: &'static str, value: OsString, what: &str) -> Result<String, SettingError> {
    match value.to_str().filter(|path| is_path(path)) {
        Some(path) => Ok(path.to_owned()),
        None => Err(SettingError::new(name, value, &format!("the absolute path of {what}, in PEM"))),
    }
}

pub(crate) fn missing(name: &'static str, other: &str) -> SettingError {
    SettingError::new(name, OsString::new(), &format!("the absolute path of a file, because {other} is set"))
}

/// Whether a text is an absolute path that can stand in a configuration.
pub(crate) fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.ends_with('/') && !text.chars().any(char::is_control)
}

/// A path as a scalar of YAML.
pub(crate) fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What Envoy watches to learn that files changed. Files written in place are noticed, too.
pub(crate) fn watch(directory: &Path) -> String {
    format!("{{ path: {}, watch_modify: true }}", quoted(&directory.to_string_lossy()))
}

/// The directory in which a change of the file at this path shows: where its last symbolic link lies, which is swapped for another one; if
/// no part of the path is a link, where the file lies.
pub(crate) fn watched(path: &str) -> PathBuf {
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    let mut directory = parent(Path::new(path));
    let mut part = PathBuf::new();
    for component in Path::new(path).components() {
        part.push(component);
        if matches!(component, Component::Normal(_)) && part.is_symlink() {
            directory = parent(&part);
        }
    }
    directory
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line for each connection whose handshake failed, at the same rate as failed requests. Neither a certificate nor a key is in it.
pub(crate) const LOG: &str = "access_log: [{ name: envoy.access_loggers.stdout, filter: { and_filter: { filters: [{ extension_filter: { \
    name: envoy.access_loggers.extension_filters.cel, typed_config: { \
    \"@type\": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, \
    expression: \"connection.transport_failure_reason != ''\" } } }, *log_rate] } }, typed_config: { \
    \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: { json_format: { \
    log: tls, time: \"%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%\", caller: \"%DOWNSTREAM_REMOTE_ADDRESS%\", \
    tls_error: \"%DOWNSTREAM_TRANSPORT_FAILURE_REASON%\" } } } }]";

#[cfg(test)]
mod tests;
