//! The host: what the core asks for, answered by Envoy's host calls.

use crate::store::{CasMismatch, ChangeSignal, SharedData};
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::UNIX_EPOCH;

/// Name of the gauge that every published change increments; Envoy shows it as `wasmcustom.pixell_route_map_changes`.
const SIGNAL_GAUGE: &str = "pixell_route_map_changes";

/// Shared-data key that stands in where the gauge is switched off.
const SIGNAL_KEY: &str = "pixell.changes.1";

/// Envoy's shared data of our `vm_id`.
pub(super) struct HostData;

impl SharedData for HostData {
    fn get(&self, key: &str) -> (Vec<u8>, u32) {
        let (value, cas) = hostcalls::get_shared_data(key).unwrap_or_default();
        (value.unwrap_or_default(), cas.unwrap_or_default())
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        hostcalls::set_shared_data(key, Some(value), Some(cas)).map_err(|_| CasMismatch)
    }

    fn now(&self) -> u64 {
        let since_epoch = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
        since_epoch.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The change signal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    /// A gauge of Envoy's: read by a host call that returns a number, the cheapest there is. It is incremented and never set, so
    /// two writers that finish out of order cannot take it back.
    Gauge(u32),
    /// A number in shared data, for an Envoy whose `stats_matcher` rejects the gauge.
    Key,
}

impl Signal {
    /// Finds out which one works here, and raises it: should an earlier VM have died between publishing a map and telling so,
    /// the workers learn of that map now.
    pub(super) fn open() -> Self {
        if let Ok(id) = hostcalls::define_metric(MetricType::Gauge, SIGNAL_GAUGE) {
            let gauge = Self::Gauge(id);
            gauge.raise();
            // A rejected stat is a null object: it takes every value and always reads 0.
            if gauge.read() != 0 {
                return gauge;
            }
        }
        log::info!("the gauge {SIGNAL_GAUGE} is switched off (stats_matcher?); changes are signalled through shared data");
        Self::Key.raise();
        Self::Key
    }
}

impl ChangeSignal for Signal {
    fn read(&self) -> u64 {
        match self {
            Self::Gauge(id) => hostcalls::get_metric(*id).unwrap_or_default(),
            Self::Key => number(&HostData.get(SIGNAL_KEY).0),
        }
    }

    fn raise(&self) {
        match self {
            Self::Gauge(id) => {
                let _ = hostcalls::increment_metric(*id, 1);
            }
            Self::Key => {
                let _ = next_number(SIGNAL_KEY);
            }
        }
    }
}

/// Makes sure that a key for [`next_number`] exists; as with [`crate::store::prepare`], two first callers would get the same number else.
pub(super) fn prepare_number(key: &str) {
    if HostData.get(key).1 == 0 {
        // An unconditional write cannot mismatch.
        let _ = HostData.set(key, &[], 0);
    }
}

/// Raises the number under a key of the shared data by one and gives the new one, from 1.
pub(super) fn next_number(key: &str) -> u64 {
    loop {
        let (bytes, cas) = HostData.get(key);
        let next = number(&bytes).wrapping_add(1);
        if HostData.set(key, &next.to_le_bytes(), cas).is_ok() {
            return next;
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// A random number, never 0.
pub(super) fn random() -> u64 {
    // The hasher's keys come from the host's random source; the standard library has no plainer way to it.
    RandomState::new().build_hasher().finish().max(1)
}

/// A property of Envoy's ("Attributes" in its documentation) by its path, whose parts are separated by NUL; `None` where it is
/// absent or empty.
pub(super) fn property(path: &str) -> Option<Vec<u8>> {
    hostcalls::get_property(vec![path]).ok().flatten()
}

/// The path of the property that holds a request header. Several fields of one name come joined by commas.
pub(super) fn header_path(name: &str) -> String {
    ["request", "headers", name].join("\0")
}

/// A request header; `None` where it is absent or empty.
pub(super) fn request_header(name: &str) -> Option<Vec<u8>> {
    property(&header_path(name))
}

/// Leaves the reason of a rejection to Envoy's access log and tracing, as the filter state `wasm.pixell.rejection`: unlike a
/// response header, no agent can set it.
pub(super) fn note_rejection(code: &str) {
    if let Err(status) = hostcalls::set_property(vec!["pixell.rejection"], Some(code.as_bytes())) {
        log::error!("the reason of a rejection could not be noted: {status:?}");
    }
}

/// A request header that is told from its absence where it is empty: an empty `if-match` is a fault, not a write without condition.
pub(super) fn request_header_or_empty(name: &str) -> Option<Vec<u8>> {
    request_header(name).or_else(|| hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok().flatten())
}

/// The plugin's configuration text.
pub(super) fn plugin_configuration() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
}
