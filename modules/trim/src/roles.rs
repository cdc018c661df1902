//! The two modules of the filter: each keeps the exports that its role needs.
//!
//! Envoy calls every callback that a module exports for every stream, and body callbacks for every frame of every stream, even
//! where the SDK's default does nothing. So what a role does not use is taken out, with the code that only it reached.

use anyhow::{Context, Result, bail};
use walrus::{ExportItem, Module};

use crate::shared_stream;

/// A role of the filter and what its module exports.
#[derive(Debug)]
pub struct Role {
    /// The module's file name.
    pub file: &'static str,
    /// The package that links it.
    pub package: &'static str,
    /// What the compiler calls it.
    pub compiled: &'static str,
    /// The callbacks that this role has and the other one does not need.
    own: &'static [&'static str],
    /// Whether it keeps nothing about a stream, so that all streams share one context.
    shares_stream: bool,
}

/// The roles. A callback that a role newly implements has to be named here, else Envoy never calls it.
pub const ROLES: [Role; 2] = [
    Role {
        file: "router.wasm",
        package: "pixell-router-module",
        compiled: "pixell_router_module.wasm",
        own: &[],
        shares_stream: true,
    },
    Role {
        file: "admin.wasm",
        package: "pixell-admin-module",
        compiled: "pixell_admin_module.wasm",
        // The SDK frees a stream's context when it is deleted.
        own: &["proxy_on_request_body", "proxy_on_request_trailers", "proxy_on_delete"],
        shares_stream: false,
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
    "proxy_on_request_headers",
];

impl Role {
    /// The role's module, made of the `compiled` one.
    ///
    /// # Errors
    /// Where `compiled` is no module or does not export what the role needs.
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
            // Globals and tables cost nothing at run time and may be what the linker relies on.
            .filter(|export| matches!(export.item, ExportItem::Function(_)))
            .map(walrus::Export::id)
            .collect();
        for export in surplus {
            module.exports.delete(export);
        }
        if self.shares_stream {
            shared_stream::share(&mut module)?;
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
            // Of the two that are wrapped the types count.
            let (parameters, results): (&[ValType], &[ValType]) = match *name {
                "proxy_on_context_create" => (&[ValType::I32; 2], &[]),
                "proxy_on_request_headers" => (&[ValType::I32; 3], &[ValType::I32]),
                _ => (&[], &[ValType::I32]),
            };
            let mut builder = FunctionBuilder::new(&mut module.types, parameters, results);
            if !results.is_empty() {
                builder.func_body().i32_const(i32::try_from(number).unwrap());
            }
            let arguments = parameters.iter().map(|kind| module.locals.add(*kind)).collect();
            let function = builder.finish(arguments, &mut module.funcs);
            module.exports.add(name, function);
        }
        module.emit_wasm()
    }

    fn exports(role: &Role, compiled: &[u8]) -> Vec<String> {
        let module = Module::from_buffer(&role.module(compiled).unwrap()).unwrap();
        // The memory is no function; two functions are behind others where streams share a context.
        let functions = module.exports.iter().count() - 1 + if role.shares_stream { 2 } else { 0 };
        assert_eq!(module.funcs.iter().count(), functions, "unreachable code is gone");
        let mut names: Vec<_> = module.exports.iter().map(|export| export.name.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_role_keeps_what_it_needs_and_no_more() {
        let functions: Vec<_> = COMMON[1..].iter().chain(ROLES[1].own).chain(&["proxy_on_log"]).copied().collect();
        let compiled = module(&functions);
        for role in &ROLES {
            let mut expected: Vec<_> = COMMON.iter().chain(role.own).map(ToString::to_string).collect();
            expected.sort();
            assert_eq!(exports(role, &compiled), expected, "{}", role.file);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = ROLES[1].module(&module(&COMMON[1..])).unwrap_err();
        assert!(
            error.to_string().contains("\"proxy_on_request_trailers\", \"proxy_on_delete\"], which admin.wasm needs"),
            "{error}"
        );
    }
}
