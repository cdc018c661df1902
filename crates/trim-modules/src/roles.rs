//! The modules of the filter: each keeps the exports that its role needs.
//!
//! Envoy calls every callback that a module exports, for every stream, and body callbacks for every frame of every stream, even if
//! the callback is the SDK's default and does nothing. So the exports that a role does not use are removed, with the code that only
//! they reach.

use anyhow::{Context, Result, bail};
use walrus::{ExportItem, Module};

/// A role of the filter and what its module exports.
#[derive(Debug)]
pub(crate) struct Role {
    /// The module's file name.
    pub(crate) file: &'static str,
    /// The file name that the compiler gives it.
    pub(crate) compiled: &'static str,
    /// The callbacks that this role needs and other roles may not.
    own: &'static [&'static str],
}

/// The roles. A callback that a role implements must be listed here or in [`COMMON`], else Envoy never calls it.
pub(crate) const ROLES: [Role; 4] = [
    Role { file: "router.wasm", compiled: "pixell_router_module.wasm", own: &["proxy_on_request_headers", "proxy_on_tick"] },
    Role {
        file: "responses.wasm",
        compiled: "pixell_responses_module.wasm",
        own: &["proxy_on_response_headers", "proxy_on_response_body", "proxy_on_response_trailers"],
    },
    Role {
        file: "admin.wasm",
        compiled: "pixell_admin_module.wasm",
        own: &["proxy_on_request_headers", "proxy_on_request_body", "proxy_on_request_trailers"],
    },
    Role {
        file: "clients.wasm",
        compiled: "pixell_clients_module.wasm",
        own: &["proxy_on_new_connection", "proxy_on_downstream_data", "proxy_on_request_headers", "proxy_on_tick"],
    },
];

/// What every module exports.
const COMMON: [&str; 8] = [
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    // The SDK frees a stream's context when it is deleted.
    "proxy_on_delete",
];

impl Role {
    /// The role's module, made from the `compiled` one.
    ///
    /// # Errors
    /// If `compiled` is not a module or does not export what the role needs.
    pub(crate) fn module(&self, compiled: &[u8]) -> Result<Vec<u8>> {
        let mut module = Module::from_buffer(compiled).context("reading the compiled module")?;
        let needed = || COMMON.iter().chain(self.own);
        let missing: Vec<_> = needed().filter(|name| !module.exports.iter().any(|export| export.name == **name)).collect();
        if !missing.is_empty() {
            bail!("the compiled module does not export {missing:?}, which {} needs", self.file);
        }
        let surplus: Vec<_> = module
            .exports
            .iter()
            .filter(|export| !needed().any(|name| *name == export.name))
            // Globals and tables cost nothing at run time, and the linker may rely on them.
            .filter(|export| matches!(export.item, ExportItem::Function(_)))
            .map(walrus::Export::id)
            .collect();
        for export in surplus {
            module.exports.delete(export);
        }
        walrus::passes::gc::run(&mut module);
        Ok(module.emit_wasm())
    }
}

#[cfg(test)]
mod tests {
    use walrus::{FunctionBuilder, ValType};

    use super::*;

    /// A module that exports functions of these names, and a memory.
    fn module(functions: &[&str]) -> Vec<u8> {
        let mut module = Module::default();
        let memory = module.memories.add_local(false, false, 1, None, None);
        module.exports.add("memory", memory);
        for (number, name) in functions.iter().enumerate() {
            let mut builder = FunctionBuilder::new(&mut module.types, &[], &[ValType::I32]);
            builder.func_body().i32_const(i32::try_from(number).unwrap());
            let function = builder.finish(Vec::new(), &mut module.funcs);
            module.exports.add(name, function);
        }
        module.emit_wasm()
    }

    fn exports(role: &Role, compiled: &[u8]) -> Vec<String> {
        let module = Module::from_buffer(&role.module(compiled).unwrap()).unwrap();
        // One export is the memory.
        assert_eq!(module.funcs.iter().count(), module.exports.iter().count() - 1, "unreachable code must be removed");
        let mut names: Vec<_> = module.exports.iter().map(|export| export.name.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_role_keeps_what_it_needs_and_no_more() {
        let own: std::collections::BTreeSet<_> = ROLES.iter().flat_map(|role| role.own).collect();
        let functions: Vec<_> = COMMON[1..].iter().chain(own).chain(&["proxy_on_log"]).copied().collect();
        let compiled = module(&functions);
        for role in &ROLES {
            let mut expected: Vec<_> = COMMON.iter().chain(role.own).map(ToString::to_string).collect();
            expected.sort();
            assert_eq!(exports(role, &compiled), expected, "{}", role.file);
        }
    }

    #[test]
    fn a_missing_export_is_named() {
        let error = ROLES[2].module(&module(&COMMON[1..])).unwrap_err();
        assert!(error.to_string().contains("\"proxy_on_request_trailers\"], which admin.wasm needs"), "{error}");
    }
}
