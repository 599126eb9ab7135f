//! `derive(Replicated)`: writes the table of an actor's commands and queries.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Attribute, DeriveInput, Error, LitInt, LitStr, Type, spanned::Spanned};

use crate::attributes::{once, types, versioned_types, wire_name};

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let Options { name, commands, newer, queries } = Options::of(input)?;
    let ident = &input.ident;
    // Spanned at the message, so that "Handler<M> is not implemented" points at its name.
    let commands = commands.iter().map(|message| {
        quote_spanned!(message.span()=> ::synod::replicated::Entry::command::<#message>())
    });
    let newer = newer.iter().flat_map(|(version, messages)| {
        messages.iter().map(move |message| {
            quote_spanned!(message.span()=>
                ::synod::replicated::Entry::command::<#message>().since(#version))
        })
    });
    let queries = queries.iter().map(
        |message| quote_spanned!(message.span()=> ::synod::replicated::Entry::query::<#message>()),
    );
    Ok(quote! {
        #[automatically_derived]
        impl ::synod::replicated::Replicated for #ident {
            const NAME: &'static str = #name;
            const ENTRIES: &'static [::synod::replicated::Entry<Self>] =
                &::synod::replicated::Entry::distinct([#(#commands,)* #(#newer,)* #(#queries,)*]);
        }
    })
}

/// What stands in `#[replicated(...)]`.
struct Options {
    name: LitStr,
    commands: Vec<Type>,
    /// Commands from a cluster version on.
    newer: Vec<(LitInt, Vec<Type>)>,
    queries: Vec<Type>,
}

impl Options {
    fn of(input: &DeriveInput) -> syn::Result<Self> {
        if !input.generics.params.is_empty() {
            let text = "a replicated actor has one name on the wire, so it cannot be generic";
            return Err(Error::new_spanned(&input.generics, text));
        }
        let (mut name, mut commands, mut queries) = (None, None, None);
        let mut newer = Vec::new();
        let ours = |attribute: &&Attribute| attribute.path().is_ident("replicated");
        for attribute in input.attrs.iter().filter(ours) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    once(&mut name, wire_name(&meta)?, &meta)
                } else if meta.path.is_ident("commands") {
                    once(&mut commands, types(&meta)?, &meta)
                } else if meta.path.is_ident("commands_since") {
                    newer.push(versioned_types(&meta)?);
                    Ok(())
                } else if meta.path.is_ident("queries") {
                    once(&mut queries, types(&meta)?, &meta)
                } else {
                    let known = "expected `name`, `commands`, `commands_since` or `queries`";
                    Err(meta.error(known))
                }
            })?;
        }
        let Some(name) = name else {
            let text = "a replicated actor needs a name of its own on the wire: \
                        #[replicated(name = \"...\", commands(...), queries(...))]";
            return Err(Error::new_spanned(&input.ident, text));
        };
        let (commands, queries) = (commands.unwrap_or_default(), queries.unwrap_or_default());
        Ok(Self { name, commands, newer, queries })
    }
}
