//! A restart in place: the container was started again inside its task, after Envoy had ended.

use std::path::Path;

/// What the line in the log begins with; the alarm on restarts looks for it (deploy/alarms.json).
pub const NOTICE: &str = "pixell-envoy: restarted in place";

/// The line to log where an earlier Envoy of this container has left `socket`, which Envoy never removes.
#[must_use]
pub fn notice(socket: &Path) -> Option<String> {
    socket.exists().then(|| format!("{NOTICE}: {} is there from the Envoy before", socket.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_left_behind_tells_of_a_restart() {
        let directory = std::env::temp_dir().join(format!("pixell-envoy-restart-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("admin.sock");
        assert_eq!(notice(&socket), None);
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(notice(&socket).unwrap().starts_with("pixell-envoy: restarted in place: /"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
