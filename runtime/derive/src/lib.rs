//! Derives for Synod.

mod replicated;

use proc_macro::TokenStream;

/// Makes an actix actor whose context is `synod::replicated::Turn` a replicated one.
///
/// ```ignore
/// #[derive(Default, Serialize, Deserialize, Replicated)]
/// #[replicated(name = "ledger", commands(Transfer), queries(Balance))]
/// struct Ledger { accounts: BTreeMap<String, i64> }
/// ```
/// Each command needs a `Handler<M>` with `type Result = M::Result`, each query a `Query<M>`.
#[proc_macro_derive(Replicated, attributes(replicated))]
pub fn replicated(input: TokenStream) -> TokenStream {
    replicated::derive(&syn::parse_macro_input!(input))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
