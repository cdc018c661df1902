//! The filter in a real Envoy with the shipped configuration, driven by real clients against real agents. One topic a file.

mod admin_listener;
mod hostile_headers;
mod rejections;
mod smoke;
mod visibility;
