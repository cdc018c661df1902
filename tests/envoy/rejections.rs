//! Every rejection of the data path, as gRPC clients and other clients see it, over HTTP/1.1 and HTTP/2.

use harness::proto::{self, DEPLOYMENT_ID, Empty};
use harness::{Agent, Envoy, agents};
use reqwest::Client;
use serde_json::{Value, json};
use tonic::Code;

/// A rejection: the id of the request, and what the response says.
struct Case {
    id: Option<&'static str>,
    http: u16,
    grpc: Code,
    message: &'static str,
    code: &'static str,
}

const MISSING: Case = Case {
    id: None,
    http: 400,
    grpc: Code::InvalidArgument,
    message: "Missing x-deployment-id header",
    code: "missing_deployment_id",
};
const EMPTY: Case = Case { id: Some(""), ..MISSING };
const MALFORMED: Case = Case {
    id: Some("not an id!"),
    http: 400,
    grpc: Code::InvalidArgument,
    message: "Invalid x-deployment-id header",
    code: "invalid_deployment_id",
};
const SEVERAL: Case = Case { id: Some("a, b"), ..MALFORMED };
const UNKNOWN: Case = Case {
    id: Some("nobody"),
    http: 404,
    grpc: Code::NotFound,
    message: "Deployment nobody not found or not ready",
    code: "unknown_deployment",
};
const NOT_LOADED: Case =
    Case { http: 503, grpc: Code::Unavailable, message: "Route map not loaded", code: "route_map_not_loaded", ..UNKNOWN };

const DRAINING: Case = Case {
    id: Some("leaving"),
    http: 503,
    grpc: Code::Unavailable,
    message: "Deployment leaving is draining and takes no new requests",
    code: "deployment_draining",
};

fn clients() -> [Client; 2] {
    let builder = || Client::builder().no_proxy();
    [builder().http1_only(), builder().http2_prior_knowledge()].map(|builder| builder.build().unwrap())
}

async fn check(envoy: &Envoy, case: &Case) {
    for client in clients() {
        let mut request = client.post(envoy.data_url() + "/any/path").json(&json!({"any": "body"}));
        if let Some(id) = case.id {
            request = request.header(DEPLOYMENT_ID, id);
        }
        let response = request.send().await.unwrap();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        assert_eq!(response.status().as_u16(), case.http, "{}", case.code);
        assert_eq!(header("x-pixell-error").as_deref(), Some(case.code));
        assert_eq!(header("content-type").as_deref(), Some("application/problem+json"));
        let body: Value = response.json().await.unwrap();
        let expected = json!({"type": "about:blank", "title": body["title"], "status": case.http, "detail": case.message,
            "code": case.code});
        assert_eq!(body, expected);
    }
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    let request = match case.id {
        Some(id) => proto::request_to(id, Empty {}).unwrap(),
        None => tonic::Request::new(Empty {}),
    };
    let status = client.health(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (case.grpc, case.message));
    assert_eq!(status.metadata().get("x-pixell-error").unwrap(), case.code);
}

#[tokio::test]
async fn rejects_as_the_contract_says() {
    let envoy = Envoy::builder().start().await.unwrap();
    for case in [MISSING, EMPTY, MALFORMED, SEVERAL, NOT_LOADED] {
        check(&envoy, &case).await;
    }
    envoy.routes().put_all(std::iter::empty::<(&str, u16)>()).await.unwrap();
    let leaving = json!({"routes": {"leaving": {"port": 5000, "state": "draining"}}});
    envoy.routes().patch_routes(&leaving).await.unwrap();
    for case in [MISSING, EMPTY, MALFORMED, SEVERAL, UNKNOWN, DRAINING] {
        check(&envoy, &case).await;
    }
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
}

/// The same id sent twice is one id: the request reaches its agent.
#[tokio::test]
async fn equal_ids_are_one_id() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent: Agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for client in clients() {
        let request = client.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").header(DEPLOYMENT_ID, "a");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}
