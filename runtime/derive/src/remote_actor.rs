//! `derive(RemoteActor)`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Error, spanned::Spanned as _};

use crate::attributes::Remote;

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let Remote { name, krate, handles, revision } = Remote::of(input)?;
    if revision.is_some() {
        return Err(Error::new_spanned(&input.ident, "only a message has a `revision`"));
    }
    let Some(handles) = handles else {
        let text = "say which messages other nodes may send: #[remote(handles(...))]";
        return Err(Error::new_spanned(&input.ident, text));
    };
    let ident = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    // Spanned to the message, so that a missing handler is shown where it is promised.
    let routes = handles.iter().map(|message| {
        quote_spanned! { message.span() => routes.on::<#message>(); }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #generics #krate::message::Handler<#krate::message::Batch<Self>>
            for #ident #arguments #bounds
        {
            type Result = ();

            fn handle(
                &mut self,
                batch: #krate::message::Batch<Self>,
                context: &mut Self::Context,
            ) {
                batch.handle(self, context)
            }
        }

        #[automatically_derived]
        impl #generics #krate::message::RemoteActor for #ident #arguments #bounds {
            const NAME: &'static str = #name;

            fn routes(routes: &mut #krate::message::Routes<Self>) {
                #(#routes)*
            }
        }
    })
}
