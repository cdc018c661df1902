//! A configuration of a filter, and a stream of it.

use crate::abi::{ConfigHost, Host};
use crate::abi_types::{DataStatus, Status};
use crate::admin::AdminFilter;
use crate::fault;
use crate::host;
use crate::router::{Kept, Router};
use crate::waits::Call;
use pixell_core::admin::exchange::Exchange;
use pixell_core::data_path::Judges;

/// The `filter_name` of the route API. The data path's are `Judges::NAMES`.
const ADMIN: &str = "admin";

/// A configuration of one of the filters.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are a few in a process")]
pub(crate) enum Filter {
    Router(Router),
    Admin(Box<AdminFilter>),
}

impl Filter {
    /// Configures the filter with this `filter_name`.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(crate) fn new(envoy: &ConfigHost, name: &[u8], config: &[u8]) -> Result<Self, String> {
        match name {
            b"admin" => AdminFilter::new(envoy, config).map(Box::new).map(Self::Admin),
            _ => match Judges::named(name) {
                Some(judges) => Router::new(envoy, config, judges).map(Self::Router),
                None => {
                    let (name, names) = (name.escape_ascii(), Judges::NAMES.map(|(name, _)| name).join(", "));
                    Err(format!("filter_name must be {names} or admin, not \"{name}\""))
                }
            },
        }
    }
}

impl Filter {
    /// Its `filter_name`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Router(router) => router.name(),
            Self::Admin(_) => ADMIN,
        }
    }

    /// Responds that the filter has failed.
    fn fail(&self, envoy: &mut Host<'_>) {
        match self {
            Self::Router(router) => router.fail(envoy),
            Self::Admin(_) => AdminFilter::fail(envoy),
        }
    }
}

/// A stream of a filter.
#[derive(Debug)]
pub(crate) enum Stream {
    Router {
        router: &'static Router,
        kept: Kept,
    },
    Admin {
        admin: &'static AdminFilter,
        exchange: Exchange,
    },
    /// It could not be made.
    Broken {
        filter: &'static Filter,
    },
}

impl Stream {
    pub(crate) fn new(filter: &'static Filter) -> Self {
        match filter {
            Filter::Router(router) => Self::Router { router, kept: Kept::default() },
            Filter::Admin(admin) => Self::Admin { admin, exchange: Exchange::default() },
        }
    }

    /// The `filter_name` of its configuration.
    pub(crate) fn filter_name(&self) -> &'static str {
        match self {
            Self::Router { router, .. } => router.name(),
            Self::Admin { .. } => ADMIN,
            Self::Broken { filter } => filter.name(),
        }
    }

    pub(crate) fn on_request_headers(&mut self, envoy: &mut Host<'_>, ends: bool) -> Status {
        match self {
            Self::Router { router, kept } => router.on_request(envoy, kept),
            Self::Admin { admin, exchange } => admin.on_request_headers(exchange, envoy, ends),
            Self::Broken { filter } => {
                filter.fail(envoy);
                Status::Stop
            }
        }
    }

    pub(crate) fn on_request_body(&mut self, envoy: &mut Host<'_>, ends: bool) -> DataStatus {
        match self {
            Self::Router { .. } => DataStatus::Continue,
            Self::Admin { admin, exchange } => admin.on_request_body(exchange, envoy, ends),
            Self::Broken { .. } => DataStatus::StopAndDrop,
        }
    }

    pub(crate) fn on_request_trailers(&mut self, envoy: &mut Host<'_>) -> Status {
        match self {
            Self::Router { .. } => Status::Continue,
            Self::Admin { admin, exchange } => admin.on_request_trailers(exchange, envoy),
            Self::Broken { .. } => Status::Stop,
        }
    }

    pub(crate) fn on_response_headers(&mut self, envoy: &mut Host<'_>) {
        if let Self::Router { router, kept } = self {
            router.on_response(envoy, kept);
        }
    }

    pub(crate) fn on_response_body(&mut self, envoy: &mut Host<'_>, ends: bool) {
        if let Self::Router { router, kept } = self {
            router.on_response_body(envoy, kept, ends);
        }
    }

    pub(crate) fn on_response_trailers(&mut self, envoy: &mut Host<'_>) {
        if let Self::Router { router, kept } = self {
            router.on_response_trailers(envoy, kept);
        }
    }

    /// The stream is complete.
    pub(crate) fn on_end(&mut self, envoy: &Host<'_>) {
        if let Self::Router { router, kept } = self {
            router.end_hop(envoy, kept);
        }
    }

    pub(crate) fn on_scheduled(&mut self, envoy: &mut Host<'_>, call: Call) {
        if let Self::Router { router, kept } = self {
            router.on_scheduled(envoy, kept, call);
        }
    }

    /// A hook of this stream has panicked.
    pub(crate) fn on_panic(&mut self, envoy: &mut Host<'_>) {
        host::error(&format!("the filter panicked: {}", fault::reason()));
        match self {
            Self::Router { router, .. } => {
                router.panicked(envoy);
                router.fail(envoy);
            }
            Self::Admin { admin, .. } => {
                admin.panicked(envoy);
                AdminFilter::fail(envoy);
            }
            Self::Broken { .. } => {}
        }
    }
}
