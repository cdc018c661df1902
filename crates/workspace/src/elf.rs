//! What a program or a shared object needs of the system that runs it, as GNU's readelf tells it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The C library and its loader, which all of Envoy's images have. The distroless one has no libgcc_s.
const LIBRARIES: [&str; 3] = ["libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];

/// The oldest glibc of Envoy's images: that of Ubuntu 22.04. The distroless one has Debian 12's.
const GLIBC: (u32, u32) = (2, 35);

/// Stands for a version without a number, such as `GLIBC_ABI_DT_RELR`, which came with 2.36: no older glibc has one.
const UNKNOWN: (u32, u32) = (u32::MAX, 0);

/// What a file needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The processor, as readelf calls it: `AArch64`, or `Advanced Micro Devices X86-64`.
    pub machine: String,
    /// The shared libraries. A program that is linked statically needs none.
    pub libraries: Vec<String>,
    /// The versions of glibc that its symbols are from.
    pub glibc: Vec<(u32, u32)>,
}

impl Needs {
    /// What `file` needs.
    ///
    /// # Errors
    /// If readelf is missing, or `file` is not what it reads.
    pub fn of(file: &Path) -> Result<Self> {
        let mut readelf = Command::new("readelf");
        readelf.args(["--wide", "--file-header", "--dynamic", "--version-info"]).arg(file).env("LC_ALL", "C");
        let output =
            readelf.output().context("readelf does not run: it comes with the linker (Debian: apt-get install binutils)")?;
        if !output.status.success() {
            bail!("readelf {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
            .with_context(|| format!("readelf {} names no machine", file.display()))
    }

    fn parse(said: &str) -> Option<Self> {
        let machine = said.lines().find_map(|line| line.trim().strip_prefix("Machine:"))?.trim().to_owned();
        let needed = said.lines().filter(|line| line.contains("(NEEDED)"));
        let libraries = needed.filter_map(|line| line.split(['[', ']']).nth(1)).map(str::to_owned).collect();
        let version = |text: &str| {
            let (major, minor) = text.split_once('.')?;
            // Some have a third number.
            Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
        };
        let named = said.split("Name: GLIBC_").skip(1).filter_map(|rest| rest.split_whitespace().next());
        Some(Self { machine, libraries, glibc: named.map(|text| version(text).unwrap_or(UNKNOWN)).collect() })
    }

    /// Checks that each of Envoy's images has it.
    ///
    /// # Errors
    /// What one of them lacks.
    pub fn check_envoys_images(&self) -> Result<()> {
        if let Some(library) = self.libraries.iter().find(|library| !LIBRARIES.contains(&library.as_str())) {
            bail!("it needs {library}, and Envoy's distroless image has only {}", LIBRARIES.join(", "));
        }
        if self.glibc.contains(&UNKNOWN) {
            bail!(
                "it needs a feature of glibc that has a name in place of a version, and Envoy's images have {}.{}",
                GLIBC.0,
                GLIBC.1
            );
        }
        if let Some((major, minor)) = self.glibc.iter().find(|version| **version > GLIBC) {
            bail!("it needs glibc {major}.{minor}, and Envoy's images have {}.{}", GLIBC.0, GLIBC.1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
ELF Header:
  Machine:                           AArch64
Dynamic section at offset 0x1 contains 2 entries:
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
Version needs section '.gnu.version_r' contains 1 entry:
  0x0010:   Name: GLIBC_2.35  Flags: none  Version: 8
  0x0020:   Name: GLIBC_2.2.5  Flags: none  Version: 7
";

    #[test]
    fn what_readelf_says_is_read() {
        let needs = Needs::parse(SAID).unwrap();
        assert_eq!((needs.machine.as_str(), needs.libraries.as_slice()), ("AArch64", ["libc.so.6".to_owned()].as_slice()));
        assert_eq!(needs.glibc, [(2, 35), (2, 2)]);
        needs.check_envoys_images().unwrap();
        assert_eq!(Needs::parse("no file"), None);
    }

    #[test]
    fn what_an_image_lacks_is_named() {
        let lacks = |from: &str, to: &str| {
            let needs = Needs::parse(&SAID.replace(from, to)).unwrap();
            needs.check_envoys_images().unwrap_err().to_string()
        };
        assert!(lacks("libc.so.6", "libgcc_s.so.1").starts_with("it needs libgcc_s.so.1,"));
        assert!(lacks("GLIBC_2.35", "GLIBC_2.36").starts_with("it needs glibc 2.36,"));
        assert!(lacks("GLIBC_2.35", "GLIBC_ABI_DT_RELR").starts_with("it needs a feature of glibc"));
    }

    #[test]
    fn a_program_needs_the_c_library() {
        let needs = Needs::of(&std::env::current_exe().unwrap()).unwrap();
        assert!(needs.libraries.iter().any(|library| library == "libc.so.6") && !needs.glibc.is_empty(), "{needs:?}");
        assert!(Needs::of(Path::new("/no/such/file")).is_err());
    }
}
