// Package report is the unit's side of the factory server's API. It enrols the unit's key. It asks for permission,
// time and credentials. It queues and sends events, and it fetches files.
//
// Client makes one request at a time and retries failures that time may cure. Queue never blocks its callers. It
// keeps events in memory, and on the recovery volume once there is one, and sends them in the background. The server
// drops events that it already has. Fetch puts a file in place. It verifies the content as it arrives, and again from
// the device.
//
// The package decides nothing about jobs and holds no key of its own. It does not log about the queue, because the
// queue is itself a sink of the log. Tokens and credentials travel over TLS only, to a server that the CA of the
// policy vouches for.
package report

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"gprovision/model/fault"
	"gprovision/model/record"
)

// Config is what a Client needs.
type Config struct {
	// Endpoint is the manifest's LogEndpoint: HOST:PORT or https://HOST:PORT.
	Endpoint string
	// CA holds the policy's certificates that may vouch for the server.
	CA *x509.CertPool
	// Unit is the unit's name, usually its serial number.
	Unit string
	// Key is the unit's private key.
	Key ed25519.PrivateKey
	// Boot identifies this run of the kernel.
	Boot string
	// Floor is a time that has certainly passed, such as the build time of the boot artifact. Certificates are
	// checked, and requests stamped, at the later of Floor and the clock.
	Floor time.Time
	// Now is the clock. nil means time.Now.
	Now func() time.Time
	// Patience limits how long one call keeps trying. 0 means two minutes.
	Patience time.Duration
	// Poll is the pause between two requests of Enrol while an approval is pending. 0 means five seconds.
	Poll time.Duration
	// Dial makes connections. nil means the usual way.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log gets a warning for each repeated attempt.
	Log *slog.Logger
}

// Client talks to the factory server for one unit. It is safe for concurrent use.
type Client struct {
	c    Config
	base string
	wait func(context.Context, time.Duration) error

	mu     sync.Mutex
	offset time.Duration // server's clock minus ours, once a request has shown it
	peer   *peer
}

// peer is one server for as long as it stays the same. All of its connections go to servers of one audience. So what
// is signed for one audience never reaches another.
type peer struct {
	http *http.Client

	mu       sync.Mutex
	audience string // empty until the first handshake
}

// errOtherServer means that another server answered than on the last connection.
var errOtherServer = errors.New("another server answers than before")

// checkAudience learns the audience from the first handshake, and requires it of all later ones.
func (p *peer) checkAudience(cs tls.ConnectionState) error {
	if len(cs.VerifiedChains) == 0 {
		return errors.New("the server's certificate was not verified")
	}
	chain := cs.VerifiedChains[0]
	a := record.Audience(chain[min(1, len(chain)-1)]) // the issuer of the server's certificate
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.audience == "" {
		p.audience = a
	}
	if p.audience != a {
		return errOtherServer
	}
	return nil
}

func (p *peer) knownAudience() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.audience
}

// New returns a Client. It does not connect. The error is fault.PlainSecrets for an endpoint without encryption and
// for a missing CA.
func New(c Config) (*Client, error) {
	base, err := record.Endpoint(c.Endpoint)
	if errors.Is(err, record.ErrPlain) {
		return nil, fault.Because(fault.PlainSecrets, err)
	}
	if err != nil {
		return nil, fault.Because(fault.ManifestSyntax, fmt.Errorf("server address: %w", err))
	}
	if c.CA == nil {
		return nil, fault.Newf(fault.PlainSecrets, "the policy holds no CA of the server")
	}
	if err := record.CheckUnit(c.Unit); err != nil {
		return nil, err
	}
	if err := record.CheckBoot(c.Boot); err != nil {
		return nil, err
	}
	if len(c.Key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("private key has %d bytes, want %d", len(c.Key), ed25519.PrivateKeySize)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Patience == 0 {
		c.Patience = 2 * time.Minute
	}
	if c.Poll == 0 {
		c.Poll = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{c: c, base: base, wait: sleep}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.forgetPeer(nil) }

// server returns the current peer, or a new one if there is none.
func (c *Client) server() *peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peer == nil {
		p := &peer{}
		protocols := &http.Protocols{}
		protocols.SetHTTP1(true)
		p.http = &http.Client{
			Timeout: 30 * time.Second,
			Transport: &http.Transport{
				Protocols:             protocols,
				DialContext:           c.c.Dial,
				TLSClientConfig:       &tls.Config{RootCAs: c.c.CA, MinVersion: tls.VersionTLS13, Time: c.now, VerifyConnection: p.checkAudience},
				TLSHandshakeTimeout:   15 * time.Second,
				ResponseHeaderTimeout: 30 * time.Second,
				IdleConnTimeout:       time.Minute,
				MaxIdleConnsPerHost:   2,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		c.peer = p
	}
	return c.peer
}

// forgetPeer closes the idle connections of a peer, so that the next request meets the server anew. nil means whichever
// peer is current.
func (c *Client) forgetPeer(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peer != nil && (p == nil || c.peer == p) {
		c.peer.http.CloseIdleConnections()
		c.peer = nil
	}
}

// now returns the later of the corrected clock and the floor.
func (c *Client) now() time.Time {
	c.mu.Lock()
	t := c.c.Now().Add(c.offset)
	c.mu.Unlock()
	if t.Before(c.c.Floor) {
		return c.c.Floor
	}
	return t
}

// adoptClock adopts the server's clock.
func (c *Client) adoptClock(server time.Time) {
	if server.IsZero() {
		return
	}
	c.mu.Lock()
	c.offset = server.Sub(c.c.Now())
	c.mu.Unlock()
}

// Time returns the server's current time. It adds half of the round trip.
func (c *Client) Time(ctx context.Context) (time.Time, error) {
	var r record.TimeReply
	var start time.Time
	if err := c.call(ctx, "GET", pathTime, nil, &r, func() { start = c.c.Now() }); err != nil {
		return time.Time{}, err
	}
	return c.adoptTimeReply(r, start), nil
}

// adoptTimeReply adopts the clock in the answer to a request that began at start, and returns it.
func (c *Client) adoptTimeReply(r record.TimeReply, start time.Time) time.Time {
	took := c.c.Now().Sub(start)
	if took < 0 || took > time.Minute {
		took = 0
	}
	t := r.Time.Add(took / 2)
	c.adoptClock(t)
	return t
}

// Enrol makes the server accept the unit's key. It fills in Unit, PublicKey and Boot of r. While an operator's
// approval is pending, it calls waiting with the reason, unless waiting is nil. It asks again after Config.Poll,
// until ctx ends. The error is fault.EnrolRefused for a refusal.
func (c *Client) Enrol(ctx context.Context, r record.EnrolRequest, waiting func(reason string)) error {
	for {
		reason, err := c.Hello(ctx, r)
		if err != nil || reason == "" {
			return err
		}
		if waiting != nil {
			waiting(reason)
		}
		if err := c.wait(ctx, c.c.Poll); err != nil {
			return fault.Newf(fault.EnrolRefused, "%s: no approval yet: %w", reason, err)
		}
	}
}

// Hello makes one request of Enrol. reason says why the key waits for an operator. It is empty once the key speaks
// for the unit.
func (c *Client) Hello(ctx context.Context, r record.EnrolRequest) (reason string, err error) {
	r.Unit, r.Boot, r.PublicKey = c.c.Unit, c.c.Boot, c.c.Key.Public().(ed25519.PublicKey)
	if err := r.Validate(); err != nil {
		return "", fault.Because(fault.EnrolRefused, err)
	}
	body, err := r.Wire()
	if err != nil {
		return "", err
	}
	var reply record.EnrolReply
	if err := c.call(ctx, "POST", "/v1/enrol", body, &reply, nil); err != nil {
		var p *Refusal
		if errors.As(err, &p) && !p.temporary() {
			return "", fault.Because(fault.EnrolRefused, p)
		}
		return "", err
	}
	c.adoptClock(reply.Time)
	if reply.Status == record.Enrolled {
		return "", nil
	}
	if reply.Reason == "" {
		reply.Reason = "an operator must approve this key"
	}
	return reply.Reason, nil
}

// Fingerprint returns the fingerprint of the unit's key. The server's page shows it, and the unit's panel must show
// it while an approval is pending.
func (c *Client) Fingerprint() string {
	return record.Fingerprint(c.c.Key.Public().(ed25519.PublicKey))
}

// Permit asks whether the unit may run a destructive job. The error is fault.NotReleased if it may not, and
// fault.NoCredentials if the server could give the unit none afterwards.
func (c *Client) Permit(ctx context.Context, job record.Job) error {
	_, err := c.Released(ctx, job)
	return err
}

// Released does what Permit does. It also returns whether an operator released this unit in particular. It returns
// false for a server that does not say.
func (c *Client) Released(ctx context.Context, job record.Job) (bool, error) {
	var reply record.PermitReply
	if err := c.post(ctx, "/v1/permit", record.PermitRequest{Job: job, Boot: c.c.Boot}, &reply); err != nil {
		return false, noCredentials(err)
	}
	if !reply.Allowed {
		return false, fault.Newf(fault.NotReleased, "%s", reply.Reason)
	}
	return reply.Released, nil
}

// Credentials requests this unit's credentials. Each call returns a new generation. The error is fault.NoCredentials
// if the server refuses.
func (c *Client) Credentials(ctx context.Context) (record.Credentials, error) {
	var raw json.RawMessage
	err := c.post(ctx, "/v1/credentials", record.CredentialsRequest{Boot: c.c.Boot}, &raw)
	if err != nil {
		return record.Credentials{}, noCredentials(err)
	}
	cr, err := record.ParseCredentials(raw)
	if err != nil {
		return record.Credentials{}, fault.Because(fault.NoCredentials, err)
	}
	return cr, nil
}

// Confirm tells the server that the credentials of this generation are set and safe on the recovery volume. From then
// on the server never gives credentials to this key again. It is no error to confirm a generation twice.
func (c *Client) Confirm(ctx context.Context, generation uint64) error {
	return noCredentials(c.post(ctx, "/v1/credentials/confirm", record.ConfirmRequest{Generation: generation}, nil))
}

func noCredentials(err error) error {
	var p *Refusal
	if errors.As(err, &p) && (p.Problem.Code == record.ProblemConfirmed || p.Problem.Code == record.ProblemNoOperator || p.Problem.Code == record.ProblemGeneration) {
		return fault.Because(fault.NoCredentials, p)
	}
	return err
}

// Send sends events once. It does not retry, because Queue does. Events without a unit get this unit's name.
func (c *Client) Send(ctx context.Context, events []record.Event) (record.BatchReply, error) {
	out := make([]record.Event, len(events))
	for i, e := range events {
		if e.Unit == "" {
			e.Unit = c.c.Unit
		}
		out[i] = e
	}
	body, err := json.Marshal(record.Batch{Events: out})
	if err != nil {
		return record.BatchReply{}, &Refusal{Status: http.StatusBadRequest, Problem: record.Problem{Code: record.ProblemSyntax, Error: err.Error()}}
	}
	var reply record.BatchReply
	err = c.request(ctx, "POST", "/v1/events", body, &reply)
	return reply, err
}

// Document sends a document. Sending it again replaces the old one.
func (c *Client) Document(ctx context.Context, d record.Document) error {
	d.Boot = c.c.Boot
	if err := d.Validate(); err != nil {
		return err
	}
	return c.post(ctx, "/v1/documents", d, nil)
}

// Refusal is a negative answer of the server.
type Refusal struct {
	// Status is the HTTP status.
	Status int
	// Problem is what the server said.
	Problem record.Problem
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("the server says: %s (%s, HTTP status %d)", r.Problem.Error, r.Problem.Code, r.Status)
}

// temporary reports whether another request later may succeed.
func (r *Refusal) temporary() bool {
	return r.Status >= 500 || r.Status == http.StatusTooManyRequests || r.Status == http.StatusRequestTimeout
}

func (c *Client) post(ctx context.Context, path string, v, into any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.call(ctx, "POST", path, body, into, nil)
}

// call repeats a request until there is an answer, the patience runs out or ctx ends. It calls before ahead of each
// attempt.
func (c *Client) call(ctx context.Context, method, path string, body []byte, into any, before func()) error {
	limit := c.c.Now().Add(c.c.Patience)
	pause := time.Second
	for {
		if before != nil {
			before()
		}
		err := c.request(ctx, method, path, body, into)
		if err == nil {
			return nil
		}
		var p *Refusal
		if errors.As(err, &p) && !p.temporary() {
			return fault.Because(fault.ServerRefused, p)
		}
		if ctx.Err() != nil || c.c.Now().Add(pause).After(limit) || isUntrusted(err) {
			return fault.Because(fault.NoServer, err)
		}
		c.c.Log.Warn("server does not answer, trying again", "request", path, "error", err.Error(), "pause", pause.String())
		if c.wait(ctx, pause) != nil {
			return fault.Because(fault.NoServer, err)
		}
		pause = min(2*pause, 15*time.Second)
	}
}

// isUntrusted reports whether err is about a certificate that waiting does not make valid.
func isUntrusted(err error) bool {
	var e *tls.CertificateVerificationError
	return errors.As(err, &e)
}

// request makes a request. It repeats it once if the server refused because of the clock, or if another server answers
// than before.
func (c *Client) request(ctx context.Context, method, path string, body []byte, into any) error {
	err := c.requestOnce(ctx, method, path, body, into)
	var p *Refusal
	switch refused := errors.As(err, &p); {
	case refused && p.Problem.Code == record.ProblemClock:
		c.adoptClock(p.Problem.Time)
	case refused && p.Problem.Code == record.ProblemAudience, errors.Is(err, errOtherServer):
	default:
		return err
	}
	return c.requestOnce(ctx, method, path, body, into)
}

// pathTime needs no signature. It is requested before anything else, to learn which server this is.
const pathTime = "/v1/time"

func (c *Client) requestOnce(ctx context.Context, method, path string, body []byte, into any) error {
	p := c.server()
	err := c.roundTrip(ctx, p, method, path, body, into)
	var r *Refusal
	if errors.Is(err, errOtherServer) || errors.As(err, &r) && r.Problem.Code == record.ProblemAudience {
		c.forgetPeer(p)
	}
	return err
}

// roundTrip sends one request to one server.
func (c *Client) roundTrip(ctx context.Context, p *peer, method, path string, body []byte, into any) error {
	if path != pathTime && p.knownAudience() == "" {
		var r record.TimeReply
		start := c.c.Now()
		if err := c.roundTrip(ctx, p, "GET", pathTime, nil, &r); err != nil {
			return err
		}
		c.adoptTimeReply(r, start)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if method != "GET" {
		req.Header.Set("Content-Type", "application/json")
		for k, v := range record.SignRequest(c.c.Key, p.knownAudience(), method, path, c.c.Unit, c.now(), body) {
			req.Header.Set(k, v)
		}
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, record.MaxBody))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		r := &Refusal{Status: resp.StatusCode}
		if json.Unmarshal(b, &r.Problem) != nil || r.Problem.Error == "" {
			r.Problem = record.Problem{Error: http.StatusText(resp.StatusCode), Code: "unknown"}
		}
		return r
	}
	if into == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("answer of %s is not valid JSON", path) // do not quote it: it may hold a secret
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
