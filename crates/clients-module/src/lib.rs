//! clients.wasm: the filter's role `clients` and nothing that only the other roles reach.
#![cfg(target_os = "wasi")]
#![expect(missing_docs, reason = "the export that the macro makes has none")]

proxy_wasm::main! {{
    pixell_router::start_clients();
}}
