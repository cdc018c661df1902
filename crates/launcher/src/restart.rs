//! Detects a restart in place: Envoy ended, and the same container was started again inside its task.

use std::path::Path;

/// The beginning of the log line. The alarm on restarts looks for it (deploy/alarms.yaml).
pub const NOTICE: &str = "pixell-envoy: restarted in place";

/// The line to log if an earlier Envoy of this container has left `socket`, which Envoy never removes.
#[must_use]
pub fn notice(socket: &Path) -> Option<String> {
    socket.exists().then(|| format!("{NOTICE}: an earlier Envoy left {}", socket.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_detected_by_the_socket_left_behind() {
        let directory = std::env::temp_dir().join(format!("pixell-envoy-restart-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("admin.sock");
        assert_eq!(notice(&socket), None);
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(notice(&socket).unwrap().starts_with("pixell-envoy: restarted in place: "));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
