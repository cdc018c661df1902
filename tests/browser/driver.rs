//! A headless Chromium, driven through chromedriver (WebDriver, W3C).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::wait;
use serde_json::{Value, json};

/// How long the page may take to show something: it polls every 2 s, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts chromedriver on a free port, and once more on another one if somebody takes that meanwhile. (`--port=0` takes one that is free for
/// IPv6, and gives up if it is not for IPv4: after other tests, that is true of many.)
fn chromedriver() -> Result<(Child, u16)> {
    for _ in 0..20 {
        let mut driver = Command::new("chromedriver")
            .arg(format!("--port={}", free_port()?))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("chromedriver does not start: install the Debian packages chromium and chromium-driver")?;
        let output = driver.stdout.take().context("chromedriver's output")?;
        let started = BufReader::new(output).lines().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        if let Some(port) = started {
            return Ok((driver, port));
        }
        driver.wait()?;
    }
    bail!("chromedriver found no free port in 20 starts")
}

/// A port that no socket has, not even one that was closed a moment ago.
fn free_port() -> Result<u16> {
    // The standard library would set SO_REUSEADDR, which chromedriver does not.
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(socket.local_addr()?.port())
}

/// A browser with one window. It ends when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    http: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with a window of this size, and with these `arguments` for Chromium.
    pub(crate) async fn start(width: u32, height: u32, arguments: &[&str]) -> Result<Self> {
        let (driver, port) = chromedriver()?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        let profile = tempfile::tempdir()?;
        let mut own = vec![
            "--headless=new".to_owned(),
            // Chromium's sandbox needs rights that containers and root do not have. The browser only opens our own pages.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--no-proxy-server".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        own.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": own},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, http, session: base.clone(), _profile: profile };
        let session = browser.post("", &capabilities).await?;
        let id = session["sessionId"].as_str().with_context(|| format!("no session: {session}"))?;
        browser.session = format!("{base}/{id}");
        // The smallest window is wider than a phone, so this sets the size that the page sees.
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
        Ok(browser)
    }

    /// Sends a WebDriver command and returns its value.
    async fn post(&self, command: &str, body: &Value) -> Result<Value> {
        let response = self.http.post(format!("{}{command}", self.session)).json(body).send().await?;
        let mut response: Value = response.json().await?;
        let value = response["value"].take();
        if value.get("error").is_some() {
            bail!("{command}: {value}");
        }
        Ok(value)
    }

    /// Sends a command of the DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters})).await
    }

    /// Opens a page. Before its scripts run, starts to record what its policy blocks.
    pub(crate) async fn open(&self, url: &str) -> Result<()> {
        let source = "window.violations = [];
            document.addEventListener('securitypolicyviolation', (event) => window.violations.push(event.violatedDirective + ' ' + event.blockedURI));";
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": source})).await?;
        self.post("/url", &json!({"url": url})).await.map(drop)
    }

    /// The value of a JavaScript expression.
    pub(crate) async fn eval(&self, expression: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({"script": format!("return ({expression});"), "args": []})).await
    }

    /// The text of the element with this id.
    pub(crate) async fn text(&self, id: &str) -> Result<String> {
        let text = self.eval(&format!("document.getElementById({}).innerText", json!(id))).await?;
        Ok(text.as_str().unwrap_or_default().trim().to_owned())
    }

    /// Waits until the JavaScript expression is true.
    pub(crate) async fn until(&self, expression: &str) -> Result<()> {
        let look = || async { Ok((self.eval(expression).await? == true).then_some(())) };
        match wait::until(expression, PATIENCE, look).await {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error:#}; the page shows:\n{}", self.eval("document.body.innerText").await?),
        }
    }

    /// Presses keys one after the other, as a person at the keyboard does.
    pub(crate) async fn press(&self, keys: &str) -> Result<()> {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})).await.map(drop)
    }

    /// Writes a picture of the window to a PNG file.
    pub(crate) async fn screenshot(&self, path: &Path) -> Result<()> {
        let shot = self.devtools("Page.captureScreenshot", json!({"format": "png"})).await?;
        let bytes = STANDARD.decode(shot["data"].as_str().context("a picture")?)?;
        std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    /// What the browser has written to its console since the last call, as `LEVEL: text`.
    pub(crate) async fn console(&self) -> Result<Vec<String>> {
        let entries = self.post("/se/log", &json!({"type": "browser"})).await?;
        let line = |entry: &Value| format!("{}: {}", entry["level"].as_str().unwrap_or("?"), entry["message"]);
        Ok(entries.as_array().into_iter().flatten().map(line).collect())
    }

    /// Ends the browser without the async runtime, which has gone if the test failed.
    fn end_session(&self) -> Result<()> {
        let (host, path) = self.session.trim_start_matches("http://").split_once('/').context("the session's URL")?;
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "DELETE /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        // The response comes when the browser has ended.
        let _ = stream.read(&mut [0; 1024])?;
        Ok(())
    }

    /// Fails if there is anything in the console, or if the page's policy has blocked something.
    pub(crate) async fn assert_clean(&self) -> Result<()> {
        let console = self.console().await?;
        let violations = self.eval("window.violations").await?;
        if !console.is_empty() || violations != json!([]) {
            bail!("console: {console:#?}\npolicy violations: {violations}");
        }
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A killed chromedriver would leave its browser behind. If the browser does not end, that does not fail the test.
        let _ = self.end_session();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
