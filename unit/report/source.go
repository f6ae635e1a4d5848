package report

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"gprovision/model/fault"
	"gprovision/model/policy"
)

// NewSource returns a client that fetches only from where the policy allows, redirects included. Its refusals are
// fault.FetchRefused. It accepts certificates that the running system or the policy vouches for. It checks them at
// the later of the clock and floor, a time that has certainly passed.
func NewSource(p policy.Policy, floor time.Time) (*http.Client, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if p.FetchCA != "" && !pool.AppendCertsFromPEM([]byte(p.FetchCA)) {
		return nil, fault.Newf(fault.FetchRefused, "the policy's fetchCA holds no certificate")
	}
	refused := func(err error) error {
		if err == nil {
			return nil
		}
		return fault.Because(fault.FetchRefused, err)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	t := &http.Transport{
		Protocols:             protocols,
		Proxy:                 http.ProxyFromEnvironment,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       time.Minute,
		TLSClientConfig: &tls.Config{
			RootCAs: pool, MinVersion: tls.VersionTLS12,
			Time: func() time.Time {
				if now := time.Now(); now.After(floor) {
					return now
				}
				return floor
			},
			VerifyConnection: func(s tls.ConnectionState) error { return refused(p.CheckPins(s.VerifiedChains)) },
		},
	}
	return &http.Client{
		Transport: allowed{p, t},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) >= 10 {
				return refused(errors.New("more than ten redirects"))
			}
			return nil
		},
	}, nil
}

// allowed checks each request against the policy, including those after a redirect.
type allowed struct {
	policy policy.Policy
	next   http.RoundTripper
}

func (a allowed) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := a.policy.CheckFetch(r.URL); err != nil {
		if r.Response != nil {
			err = fmt.Errorf("redirect: %w", err)
		}
		return nil, fault.Because(fault.FetchRefused, err)
	}
	return a.next.RoundTrip(r)
}
