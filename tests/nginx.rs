//! nginx in front of the data path, with the defaults of `proxy_pass`: it speaks HTTP/1.0 and closes each connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is how a test fails"
)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents, wait};
use serde_json::Value;

/// Ends nginx: SIGTERM to the master, which ends its worker.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn requests_pass_through_nginx_with_its_defaults() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {};", at(name)));
    let configuration = format!(
        "daemon off; pid {}; error_log stderr; events {{}} http {{ access_log off; {} server {{ listen 127.0.0.1:{port}; \
         location / {{ proxy_pass {}; }} }} }}",
        at("pid"),
        temporary.concat(),
        envoy.data_url()
    );
    std::fs::write(at("nginx.conf"), configuration).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.args(["-e", "stderr", "-p", &at(""), "-c", &at("nginx.conf")]).stdin(Stdio::null());
    let _nginx = Nginx(nginx.spawn().expect("nginx is missing: install the Debian package nginx-light"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = |method: &str, id: &str| {
        let method = method.parse().unwrap();
        client.request(method, format!("http://127.0.0.1:{port}/some/path?q=1")).header(DEPLOYMENT_ID, id.to_owned())
    };
    let up = || async { Ok(ask("GET", "a").send().await.ok()) };
    wait::until("nginx", Duration::from_secs(20), up).await.unwrap();

    for method in ["GET", "POST", "DELETE"] {
        let response = ask(method, "a").body("body").send().await.unwrap();
        assert_eq!(response.status(), 200, "{method}");
        let seen: Value = response.json().await.unwrap();
        assert_eq!(
            (&seen["method"], &seen["path"], &seen["body_bytes"]),
            (&method.into(), &"/some/path?q=1".into(), &4.into())
        );
    }
    let rejected = ask("GET", "nobody").send().await.unwrap();
    assert_eq!(
        (rejected.status().as_u16(), &rejected.headers()["x-pixell-error"]),
        (404, &"unknown_deployment".parse().unwrap())
    );
    let lines = envoy.logged(4, |line| line["protocol"] == "HTTP/1.0").await.unwrap();
    assert!(lines.iter().all(|line| line["deployment_id"] != Value::Null), "every request of nginx is HTTP/1.0 and has an id");
}
