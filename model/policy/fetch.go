package policy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

var fetchHost = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[1-9][0-9]{0,4})?$|^\[[0-9a-f:]+\](:[1-9][0-9]{0,4})?$`)

func (p Policy) validateFetch() error {
	for _, h := range p.FetchHosts {
		if !fetchHost.MatchString(h) {
			return fmt.Errorf("policy fetchHosts has %q, want NAME, NAME:PORT or *.DOMAIN in lower case", h)
		}
	}
	for _, pin := range p.FetchPins {
		b, ok := strings.CutPrefix(pin, pinPrefix)
		if sum, err := base64.StdEncoding.DecodeString(b); !ok || err != nil || len(sum) != sha256.Size {
			return fmt.Errorf("policy fetchPins has %q, want %sBASE64", pin, pinPrefix)
		}
	}
	if len(p.FetchPins) > 0 && p.FetchPlain {
		return errors.New("policy fetchPins has no meaning where fetchPlain allows http")
	}
	if p.FetchPlain && p.AllowUnsigned {
		return errors.New("policy allows unsigned images and fetchPlain: anybody on the way could replace the product")
	}
	if p.FetchCA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(p.FetchCA)) {
		return errors.New("policy fetchCA holds no certificate in PEM")
	}
	if p.NetworkRecovery != "" {
		u, err := url.Parse(p.NetworkRecovery)
		if err == nil {
			err = p.CheckFetch(u)
		}
		if err != nil {
			return fmt.Errorf("policy networkRecovery: %w", err)
		}
	}
	return nil
}

const pinPrefix = "sha256//"

// Pin returns what FetchPins has for a certificate's public key: the SHA-256 of its SubjectPublicKeyInfo (RFC 7469, 2.4).
func Pin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return pinPrefix + base64.StdEncoding.EncodeToString(sum[:])
}

// CheckFetch says why nothing may be fetched from an address.
func (p Policy) CheckFetch(u *url.URL) error {
	port := map[string]string{"https": "443", "http": "80"}[u.Scheme]
	switch {
	case port == "":
		return fmt.Errorf("%s is no address of a web server", u.Redacted())
	case u.Scheme == "http" && !p.FetchPlain:
		return fmt.Errorf("%s is not encrypted, and the policy wants https", u.Redacted())
	case u.User != nil:
		return fmt.Errorf("%s carries a password, which logs would show", u.Redacted())
	}
	host, own := strings.ToLower(u.Hostname()), u.Port()
	if own == "" {
		own = port
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	allowed := slices.ContainsFunc(p.FetchHosts, func(h string) bool {
		name, with, found := h, port, false
		if i := strings.LastIndexByte(h, ':'); i >= 0 && !strings.HasSuffix(h, "]") {
			name, with, found = h[:i], h[i+1:], true
		}
		if own != with && (found || own != port) {
			return false
		}
		if domain, ok := strings.CutPrefix(name, "*"); ok {
			return strings.HasSuffix(host, domain) && len(host) > len(domain)
		}
		return host == name
	})
	if !allowed {
		return fmt.Errorf("%s:%s is not in fetchHosts of the policy", host, own)
	}
	return nil
}

// CheckPins says why the chains of certificates that vouch for a server do not do.
func (p Policy) CheckPins(chains [][]*x509.Certificate) error {
	if len(p.FetchPins) == 0 {
		return nil
	}
	for _, chain := range chains {
		if slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return slices.Contains(p.FetchPins, Pin(c)) }) {
			return nil
		}
	}
	return errors.New("no key of the server is in fetchPins of the policy")
}
