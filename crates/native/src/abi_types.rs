//! Numbers of Envoy's C interface for dynamic modules.

/// An attribute of a stream: its number in `envoy_dynamic_module_type_attribute_id`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `response.code`
    ResponseCode = 15,
    /// `response.code_details`
    ResponseCodeDetails = 16,
    /// `upstream.address`
    UpstreamAddress = 41,
    /// `upstream.local_address`
    UpstreamLocalAddress = 51,
}

/// A level of Envoy's log.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What operators may want to know.
    Info = 2,
    /// What operators should know.
    Warn = 3,
    /// An error.
    Error = 4,
}

/// What a hook for headers or trailers returns; the numbers are those of `FilterHeadersStatus` and `FilterTrailersStatus`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The next filter is called.
    Continue = 0,
    /// The next filter is not called.
    Stop = 1,
}

/// What a hook for a part of the body returns; the numbers are those of `FilterDataStatus`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataStatus {
    /// The next filter is called.
    Continue = 0,
    /// The next filter is not called, and Envoy keeps the part.
    StopAndKeep = 1,
    /// The next filter is not called, and the part is dropped.
    StopAndDrop = 3,
}
