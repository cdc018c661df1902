//! A client of the route API that returns every response, whatever its status.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

/// A client of the route API of one Envoy.
#[derive(Clone, Debug)]
pub struct RouteApi {
    client: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// A response of the route API, unchanged.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    /// The HTTP status.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    /// The response body.
    pub body: Bytes,
}

impl RouteApi {
    /// A client of the Envoy whose route API is at `base`, for instance `http://127.0.0.1:9901`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        // Without proxy and TLS these settings cannot fail.
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap_or_default();
        Self { client, base: base.trim_end_matches('/').to_owned(), token: None }
    }

    /// The same client with `token` as its bearer token.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// A request that a test can change (headers, unusual bodies) before it passes it to [`RouteApi::send`].
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends `request` and returns the response, whatever its status.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn send(request: reqwest::RequestBuilder) -> Result<ApiResponse> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(ApiResponse { status, headers, body: response.bytes().await? })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn get(&self, path: &str) -> Result<ApiResponse> {
        Self::send(self.request(Method::GET, path)).await
    }

    /// `GET /v1/routes`.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn routes(&self) -> Result<ApiResponse> {
        self.get("/v1/routes").await
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn status(&self) -> Result<ApiResponse> {
        self.get("/v1/status").await
    }

    /// `GET /v1/routes/{id}`.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn route(&self, id: &str) -> Result<ApiResponse> {
        self.get(&format!("/v1/routes/{id}")).await
    }

    /// `PUT /v1/routes` with `body`.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn put_routes(&self, body: &Value) -> Result<ApiResponse> {
        Self::send(self.request(Method::PUT, "/v1/routes").json(body)).await
    }

    /// `PATCH /v1/routes` with `body`.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn patch_routes(&self, body: &Value) -> Result<ApiResponse> {
        Self::send(self.request(Method::PATCH, "/v1/routes").json(body)).await
    }

    /// `PUT /v1/routes/{id}` with `route`, a port or an object.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn put_route(&self, id: &str, route: &Value) -> Result<ApiResponse> {
        Self::send(self.request(Method::PUT, &format!("/v1/routes/{id}")).json(route)).await
    }

    /// `DELETE /v1/routes/{id}`.
    ///
    /// # Errors
    /// If no complete response comes.
    pub async fn delete_route(&self, id: &str) -> Result<ApiResponse> {
        Self::send(self.request(Method::DELETE, &format!("/v1/routes/{id}"))).await
    }

    /// Makes `routes` (id and port) the whole route map.
    ///
    /// # Errors
    /// If the API does not respond with 200.
    pub async fn put_all<'a>(&self, routes: impl IntoIterator<Item = (&'a str, u16)>) -> Result<ApiResponse> {
        let routes: Map<String, Value> = routes.into_iter().map(|(id, port)| (id.to_owned(), port.into())).collect();
        self.put_routes(&json!({ "routes": routes })).await?.expect(StatusCode::OK)
    }
}

impl ApiResponse {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is not JSON; the error shows the response.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("the response is not JSON: {self}"))
    }

    /// The value of the response header `name`; `None` if there is none, or if it is not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the response if it has the status `expected`.
    ///
    /// # Errors
    /// If it has another status; the error shows the response.
    pub fn expect(self, expected: StatusCode) -> Result<Self> {
        if self.status == expected {
            return Ok(self);
        }
        anyhow::bail!("expected {expected}, but the route API responded with {self}")
    }
}

impl std::fmt::Display for ApiResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.status, String::from_utf8_lossy(&self.body).trim())
    }
}
