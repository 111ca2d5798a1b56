use hyper::Uri;
use rustls::pki_types::ServerName;

use super::ClientError;

/// One gateway's address.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
    /// For the Host field of a request.
    pub(super) authority: String,
}

impl Endpoint {
    /// Reads `https://host:port`.
    pub(super) fn parse(url: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::Nonsense(format!("{url:?} is no https://host:port"));
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if uri.scheme_str() != Some("https") || !bare || authority.as_str().contains('@') {
            return Err(bad());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            name: ServerName::try_from(host.clone()).map_err(|_| bad())?,
            host,
            port: authority.port_u16().unwrap_or(443),
            authority: authority.as_str().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let endpoint = Endpoint::parse("https://[::1]:8443").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 8443));
        assert_eq!(Endpoint::parse("https://gw.example/").unwrap().port, 443);
        for bad in
            ["http://a:1", "https://", "https://u@a:1", "https://a:1/x", "a:1", "https://a b"]
        {
            assert!(matches!(Endpoint::parse(bad), Err(ClientError::Nonsense(_))), "{bad}");
        }
    }
}
