//! Derives for Synod.

mod async_handlers;
mod attributes;
mod remote_actor;
mod remote_message;
mod replicated;
mod schema;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemImpl, parse_macro_input};

/// Lets `async` methods be handlers, one at a time: `#[async_handlers(name = "ledger")]` on
/// `impl Ledger`, whose every method takes `&mut self` and one message and answers its result.
///
/// The actor is `Serial<Ledger>`; `synod::serial` says what holds. With `name` it can be registered
/// and reached from other nodes, and its messages must be remote ones. `crate = "path"` as in
/// [`macro@RemoteMessage`].
#[proc_macro_attribute]
pub fn async_handlers(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let block = parse_macro_input!(item as ItemImpl);
    let expanded = async_handlers::expand(attribute.into(), &block);
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Gives a message its name on the wire: `#[remote(name = "ledger.append")]`.
///
/// The name is chosen by hand and stays, however the type is renamed or moved. The message must
/// also be an `actix::Message` and (de)serialisable, and so must its result; the compiler says
/// when it is not. `#[remote(crate = "path")]` names the crate that has `message`, when it is
/// not `::synod`.
///
/// The derive also writes down the message's form (`RemoteMessage::SCHEMA`): its fields by name
/// and type, which of them may be missing (`#[serde(default)]` or an `Option`), and its result.
/// Nodes compare these before they send. Types are compared by their names, so a change *inside* a
/// field's type is not seen: say `#[remote(name = "...", revision = 2)]` then, and builds with
/// another revision refuse this message instead of misreading it.
#[proc_macro_derive(RemoteMessage, attributes(remote))]
pub fn remote_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    remote_message::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Lets other nodes send to an actor: `#[remote(name = "ledger", handles(Append, Balance))]`.
///
/// Every message listed must be a `RemoteMessage` and have its `Handler`; the compiler says when
/// it has not. `#[remote(crate = "path")]` as in [`macro@RemoteMessage`].
#[proc_macro_derive(RemoteActor, attributes(remote))]
pub fn remote_actor(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    remote_actor::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Puts an actor under the log: `#[replicated(name = "ledger", commands(Transfer),
/// queries(Balance))]`.
///
/// Its context must be `synod::replicated::Turn`; each command must be a `RemoteMessage` and have
/// its `Handler` with `type Result = M::Result`, each query its `Query`. The compiler says when
/// one is missing, and refuses two messages of one wire name.
#[proc_macro_derive(Replicated, attributes(replicated))]
pub fn replicated(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    replicated::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
