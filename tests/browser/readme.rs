//! A newcomer who does what the README says: starts the demo, opens the page of an agent, and finds it on the status page.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use launcher::filter::Filter;
use regex::Regex;
use serde_json::json;

use crate::driver::Browser;

/// How often a start is tried: somebody may take the port before Envoy does.
const STARTS: usize = 5;

/// The part of the README that a newcomer reads.
fn quick_start() -> &'static str {
    let (_, rest) = include_str!("../../README.md").split_once("\n## Quick start\n").unwrap();
    rest.split("\n## ").next().unwrap()
}

/// The one link of the quick start to this port, as its path.
fn link(port: u16) -> &'static str {
    let start = format!("<http://127.0.0.1:{port}");
    let links: Vec<_> = quick_start().split(&start).skip(1).map(|rest| rest.split('>').next().unwrap()).collect();
    let [link] = links[..] else { panic!("{start}: {links:?}") };
    link
}

/// What `cargo xtask demo` runs.
fn program() -> PathBuf {
    let build = Command::new("cargo").args(["build", "--quiet", "--workspace", "--bin", "demo"]).status();
    assert!(build.unwrap().success(), "the demo does not build");
    workspace::target().join("debug/demo")
}

/// A demo that stays up, like that of the README but for the ports: another demo may be running on those.
struct Demo {
    process: Child,
    /// Reads to the end, so that later output does not fill the pipe.
    reader: Option<JoinHandle<()>>,
    data: u16,
    admin: u16,
}

impl Demo {
    fn start(filter: Filter) -> Self {
        let program = program();
        let starts = (0..STARTS).find_map(|_| Self::try_start(&program, filter));
        starts.unwrap_or_else(|| panic!("the demo ended before it was up, {STARTS} times"))
    }

    /// `None` if it ends before it is up.
    fn try_start(program: &PathBuf, filter: Filter) -> Option<Self> {
        // The status page's links contain the port.
        let data = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut process = Command::new(program)
            .args(["--listen-port", &data.to_string(), "--admin-port", "0", "--filter", filter.name()])
            .current_dir(workspace::root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = Regex::new(r"http://127\.0\.0\.1:(\d+)/ready").unwrap();
        let mut said = Vec::new();
        let admin = lines.by_ref().find_map(|line| {
            let found = ready.captures(&line).map(|found| found[1].parse().unwrap());
            said.push(line);
            found
        });
        let reader = std::thread::spawn(move || lines.for_each(drop));
        let demo = Self { process, reader: Some(reader), data, admin: admin? };
        // It names the same page.
        let page = format!("http://127.0.0.1:{data}{}", link(50051));
        assert!(said.iter().any(|line| line.trim() == page), "{page}: {said:#?}");
        Some(demo)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // SIGTERM, with which it ends its Envoy.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

#[tokio::test]
async fn a_newcomer_opens_the_page_that_it_names() {
    assert!(quick_start().contains("\n```sh\ncargo xtask demo\n```\n"), "the demo is what the newcomer starts");
    for filter in [Filter::Wasm, Filter::Native] {
        let demo = Demo::start(filter);
        let page = format!("http://127.0.0.1:{}{}", demo.data, link(50051));
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        browser.open(&page).await.unwrap();
        // The live events and the WebSocket that the README promises.
        crate::agents::shows(&browser, "events", "event 2").await;
        crate::agents::shows(&browser, "echo", "said over a WebSocket").await;
        crate::agents::shows(&browser, "hello", "alpha says hello").await;
        // The browser asks for an icon, which the agent does not have.
        let console = browser.console().await.unwrap();
        assert!(console.iter().all(|line| line.contains("favicon.ico")), "{console:#?}");
        // "The status page links to it."
        browser.open(&format!("http://127.0.0.1:{}{}", demo.admin, link(9901))).await.unwrap();
        browser.until(&crate::has_rows(2)).await.unwrap();
        let links = browser.eval("[...document.querySelectorAll('#rows a')].map((a) => a.href)").await.unwrap();
        assert!(links.as_array().unwrap().contains(&json!(page)), "{page}: {links}");
        browser.assert_clean().await.unwrap();
    }
}
