//! The flags for the two ports of an Envoy that a person starts, and the errors if a port is in use.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;

/// The data path's port, as shipped.
pub const LISTEN: u16 = 50051;
/// The port of the route API, readiness and stats, as shipped.
pub const ADMIN: u16 = 9901;
/// The port for other tasks of the fleet, as shipped.
pub const PEERS: u16 = 50050;

/// A port of 127.0.0.1 that nobody has now.
///
/// # Errors
/// If there is none.
pub fn any_free() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Flags that choose the ports.
#[derive(Args, Clone, Copy, Debug)]
pub struct Ports {
    /// Port of 127.0.0.1 for clients of agents, 0 for any free port [default: 50051]
    #[arg(long, value_name = "PORT")]
    pub listen_port: Option<u16>,
    /// Port of 127.0.0.1 for the route API, readiness and stats, 0 for any free port [default: 9901]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
}

impl Ports {
    /// The ports to use: those of the flags, else `listen` and `admin`, after a check that they are free.
    ///
    /// Envoy's own error would not say which process has the port.
    ///
    /// # Errors
    /// If one is in use; the error names the flag that chooses another port and, if it can be found, the process.
    pub fn claim(self, listen: u16, admin: u16) -> Result<(u16, u16)> {
        let listen = self.listen_port.unwrap_or(listen);
        let admin = self.admin_port.unwrap_or(admin);
        if listen == admin && listen != 0 {
            bail!("--listen-port and --admin-port are both {listen}: choose two ports");
        }
        for (flag, port) in [("--listen-port", listen), ("--admin-port", admin)] {
            free(port, &format!("choose another port with {flag}"))?;
        }
        Ok((listen, admin))
    }
}

/// Checks that nobody listens on `port` of 127.0.0.1.
///
/// # Errors
/// If somebody does; the error names the process, if it can be found, and gives `advice`.
pub fn free(port: u16, advice: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let holder = holder(port).map_or_else(String::new, |holder| format!(" {holder}"));
            bail!("port {port} is in use{holder}: end that program, or {advice} (0: any free port)")
        }
        Err(error) => bail!("port {port} cannot be used ({error}): {advice}"),
    }
}

/// The process that listens on `port`, if Linux shows it to this user.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let socket = tables.iter().flat_map(|table| table.lines()).find_map(|line| listening_inode(line, port))?;
    let link = format!("socket:[{socket}]");
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let holder = processes.filter(|process| holds(process, &link)).min()?;
    let pid = holder.file_name()?.to_str()?;
    let parent = parent(pid).filter(|parent| name(parent) == "demo");
    Some(match parent {
        Some(demo) => format!("because a demo is already running (pid {demo})"),
        None => format!("by {} (pid {pid})", name(pid)),
    })
}

fn name(pid: &str) -> String {
    std::fs::read_to_string(Path::new("/proc").join(pid).join("comm")).unwrap_or_default().trim().to_owned()
}

fn parent(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix("PPid:")?.trim().to_owned()))
}

/// The inode of the socket in this `line` of `/proc/net/tcp`, if it listens on `port`.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    const LISTENING: &str = "0A";
    let fields: Vec<_> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTENING;
    fields.get(9).copied().filter(|_| listens)
}

fn holds(process: &Path, link: &str) -> bool {
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return false };
    let mut targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.any(|target| target.as_os_str() == link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_flag_and_process() {
        let used = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = used.local_addr().unwrap().port();
        let ports = Ports { listen_port: Some(0), admin_port: Some(port) };
        let message = ports.claim(LISTEN, ADMIN).unwrap_err().to_string();
        assert!(message.contains(&format!("port {port} is in use")), "{message}");
        assert!(message.contains("--admin-port"), "{message}");
        if cfg!(target_os = "linux") {
            assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
        }
    }

    #[test]
    fn one_port_for_both_is_an_error() {
        let ports = Ports { listen_port: Some(7), admin_port: Some(7) };
        assert!(ports.claim(LISTEN, ADMIN).unwrap_err().to_string().contains("both 7"));
    }

    #[test]
    fn free_ports_are_accepted() {
        let ports = Ports { listen_port: Some(0), admin_port: None };
        assert_eq!(ports.claim(LISTEN, 0).unwrap(), (0, 0));
    }
}
