//! `derive(RemoteMessage)`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error};

use crate::{attributes::Remote, schema};

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let Remote { name, krate, handles, revision } = Remote::of(input)?;
    if handles.is_some() {
        return Err(Error::new_spanned(&input.ident, "only an actor `handles` messages"));
    }
    let schema = schema::of(input, &krate, revision.unwrap_or_default());
    let ident = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics #krate::message::RemoteMessage for #ident #arguments #bounds {
            const NAME: &'static str = #name;
            const SCHEMA: #krate::message::Schema = #schema;
        }
    })
}
