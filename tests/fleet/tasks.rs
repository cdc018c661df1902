//! A fleet for a test: tasks with a real Envoy each, agents in them, and clients between them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::fabric::Fabric;
use harness::fleet::Peers;
use harness::fleet::task::start_envoy;
use harness::{Agent, Envoy, EnvoyBuilder, agents, certificate};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A network of tasks, each with an Envoy at its port 50051.
pub(crate) struct Tasks {
    pub(crate) fabric: Fabric,
    pub(crate) envoys: Vec<Envoy>,
    /// The files of certificates, if the tasks have any.
    certificates: Option<TempDir>,
}

/// A response, and how long the client waited for it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the agent `echo` saw.
    #[track_caller]
    pub(crate) fn seen(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks that it is this rejection, that it came within 2 s, and that it shows nothing of the tasks to the client.
    #[track_caller]
    pub(crate) fn is_rejected(&self, code: &str) {
        assert_eq!(self.header("x-pixell-error"), Some(code), "{self:?}");
        assert_eq!(self.header("x-pixell-misdirected"), None, "{self:?}");
        assert!(self.took < Duration::from_secs(2), "{self:?}");
    }
}

impl Tasks {
    /// Starts so many tasks.
    pub(crate) async fn start(tasks: u8) -> Self {
        Self::with(tasks, |_| Vec::new()).await
    }

    /// Starts so many tasks, each with further settings.
    pub(crate) async fn with(tasks: u8, settings: impl Fn(usize) -> Vec<(&'static str, String)>) -> Self {
        Self::changed(tasks, settings, |builder| builder).await
    }

    /// The same, with changes of how each Envoy is started.
    pub(crate) async fn changed(
        tasks: u8,
        settings: impl Fn(usize) -> Vec<(&'static str, String)>,
        change: impl Fn(EnvoyBuilder) -> EnvoyBuilder,
    ) -> Self {
        let fabric = Fabric::new(tasks).unwrap();
        let mut envoys = Vec::new();
        for task in 0..usize::from(tasks) {
            let started = start_envoy(fabric.task(task).unwrap(), settings(task), &change).await;
            envoys.push(started.unwrap());
        }
        Self { fabric, envoys, certificates: None }
    }

    /// Starts two tasks that know each other so, with further settings.
    pub(crate) async fn by(peers: Peers, mut settings: Vec<(&'static str, String)>) -> Self {
        let mut certificates = None;
        if peers == Peers::ByCertificate {
            let directory = tempfile::tempdir().unwrap();
            settings.extend(certificate::of_peers(directory.path()).unwrap());
            certificates = Some(directory);
        }
        Self { certificates, ..Self::with(2, |_| settings.clone()).await }
    }

    /// Checks that task 0 has reached task 1, and by a certificate if the tasks have any.
    pub(crate) async fn have_met(&self) {
        assert!(self.count(1, "wasmcustom.pixell_fleet_requests_total.hop.in").await > 0);
        let handshakes = self.count(1, "listener.peers.ssl.handshake").await;
        assert_eq!(handshakes > 0, self.certificates.is_some(), "{handshakes} handshakes");
    }

    /// Where clients reach a task.
    pub(crate) fn data(&self, task: usize) -> SocketAddr {
        (self.fabric.address(task), 50051).into()
    }

    /// Makes an agent in a task.
    pub(crate) async fn agent(&self, task: usize, make: impl FnOnce() -> anyhow::Result<Agent> + Send + 'static) -> Agent {
        self.fabric.task(task).unwrap().run(move || async move { make() }).await.unwrap().unwrap()
    }

    pub(crate) async fn echo(&self, task: usize, name: &'static str) -> Agent {
        self.agent(task, move || agents::echo::start(name)).await
    }

    /// Makes these the routes of a task.
    pub(crate) async fn routes(&self, task: usize, routes: Value) {
        self.put(task, "/v1/routes", json!({ "routes": routes })).await;
    }

    /// Makes this the fleet map of a task: ids and the tasks that serve them. Each task is a peer by the name `task-N`.
    pub(crate) async fn fleet(&self, task: usize, routes: &[(&str, &[usize])]) {
        let name = |task: &usize| format!("task-{task}");
        // One that exists nowhere is the last one.
        let all = 0..=self.envoys.len();
        let peers: Map<_, _> = all.map(|task| (name(&task), json!({ "host": self.fabric.address(task) }))).collect();
        let routes: Map<_, _> = routes.iter().map(|(id, tasks)| ((*id).to_owned(), tasks.iter().map(name).collect())).collect();
        self.put(task, "/v1/fleet", json!({ "peers": peers, "routes": routes })).await;
    }

    pub(crate) async fn put(&self, task: usize, path: &'static str, body: Value) {
        let routes = self.envoys[task].routes();
        let put = move || async move { harness::RouteApi::send(routes.request(Method::PUT, path).json(&body)).await.unwrap() };
        let response = self.fabric.task(task).unwrap().run(put).await.unwrap();
        assert_eq!(response.status, 200, "{response}");
    }

    /// Sends a request to a task, over HTTP/1.1 unless it is changed, and returns the response.
    pub(crate) async fn send(
        &self,
        task: usize,
        path: &str,
        change: impl FnOnce(RequestBuilder) -> RequestBuilder + Send + 'static,
    ) -> Response {
        let url = format!("http://{}{path}", self.data(task));
        let send = move || async move {
            let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
            let started = Instant::now();
            let response = change(client.get(url)).send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.text().await.unwrap();
            Response { status, headers, body, took: started.elapsed() }
        };
        self.fabric.outside().run(send).await.unwrap()
    }

    /// Sends a request that names its agent by the header.
    pub(crate) async fn ask(&self, task: usize, id: &'static str) -> Response {
        self.send(task, "/x?y=z", move |request| request.header("x-deployment-id", id)).await
    }

    /// A counter of a task's Envoy.
    pub(crate) async fn count(&self, task: usize, name: &str) -> u64 {
        self.envoys[task].stat(name).await.unwrap().unwrap_or_default()
    }
}
