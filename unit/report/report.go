// Package report is the unit's side of the factory server's API: it enrols the unit's key, asks for permission, time and
// credentials, queues and sends events, and fetches files.
//
// Client asks one thing at a time and retries what can be cured by waiting. Queue never blocks who adds to it: it keeps
// events in memory, on the recovery volume once there is one, and sends them in the background; the server drops what it
// knows already. Fetch brings one file to its place, verified while it arrives and again from the device.
//
// The package decides nothing about jobs, holds no key of its own, and writes no log about the queue (the queue is a sink
// of the log). Tokens and credentials travel over TLS only, to a server that the CA of the policy vouches for.
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
	// CA holds the certificates that may vouch for the server, from the policy.
	CA *x509.CertPool
	// Unit is the unit's name, mostly its serial number.
	Unit string
	// Key is the unit's private key.
	Key ed25519.PrivateKey
	// Boot identifies this run of the kernel.
	Boot string
	// Floor is a time that has certainly passed, such as the build time of the boot artifact. Certificates are judged, and
	// requests stamped, with the later of it and the clock.
	Floor time.Time
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Patience is how long one call goes on trying; 0: two minutes.
	Patience time.Duration
	// Poll is how long Enrol waits between two asks while an approval is pending; 0: five seconds.
	Poll time.Duration
	// Dial makes connections; nil: as usual.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log gets a warning for each attempt that is repeated.
	Log *slog.Logger
}

// Client talks to the factory server for one unit. It is safe for concurrent use.
type Client struct {
	c    Config
	base string
	wait func(context.Context, time.Duration) error

	mu     sync.Mutex
	offset time.Duration // of the server's clock against ours, once a request told it
	peer   *peer
}

// peer is one server, as long as it is the same one: its connections all go to servers of one audience, so that what is signed for
// one of them never reaches another.
type peer struct {
	http *http.Client

	mu       sync.Mutex
	audience string // empty until the first handshake
}

// errOtherServer says that another server answers than at the last connection.
var errOtherServer = errors.New("another server answers than before")

// meet learns the audience from the first handshake and holds all others to it.
func (p *peer) meet(cs tls.ConnectionState) error {
	if len(cs.VerifiedChains) == 0 {
		return errors.New("the server's certificate was not verified")
	}
	chain := cs.VerifiedChains[0]
	a := record.Audience(chain[min(1, len(chain)-1)]) // who vouches for the server's certificate
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

func (p *peer) known() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.audience
}

// New returns a Client. It does not connect. An endpoint that is not encrypted, or a missing CA, is a fault.PlainSecrets.
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
func (c *Client) Close() { c.forget(nil) }

// server returns who is asked, a new one if there is none.
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
				TLSClientConfig:       &tls.Config{RootCAs: c.c.CA, MinVersion: tls.VersionTLS13, Time: c.now, VerifyConnection: p.meet},
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

// forget ends the idle connections of a server, nil for whichever there is, and lets the next request meet it anew.
func (c *Client) forget(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peer != nil && (p == nil || c.peer == p) {
		c.peer.http.CloseIdleConnections()
		c.peer = nil
	}
}

// now is the later of the corrected clock and the floor.
func (c *Client) now() time.Time {
	c.mu.Lock()
	t := c.c.Now().Add(c.offset)
	c.mu.Unlock()
	if t.Before(c.c.Floor) {
		return c.c.Floor
	}
	return t
}

// learn takes over the server's clock.
func (c *Client) learn(server time.Time) {
	if server.IsZero() {
		return
	}
	c.mu.Lock()
	c.offset = server.Sub(c.c.Now())
	c.mu.Unlock()
}

// Time returns the server's clock, as it is now: half of the round trip is added.
func (c *Client) Time(ctx context.Context) (time.Time, error) {
	var r record.TimeReply
	var start time.Time
	if err := c.call(ctx, "GET", pathTime, nil, &r, func() { start = c.c.Now() }); err != nil {
		return time.Time{}, err
	}
	return c.tell(r, start), nil
}

// tell takes over the clock of an answer to a request that was begun at start, and returns it.
func (c *Client) tell(r record.TimeReply, start time.Time) time.Time {
	took := c.c.Now().Sub(start)
	if took < 0 || took > time.Minute {
		took = 0
	}
	t := r.Time.Add(took / 2)
	c.learn(t)
	return t
}

// Enrol makes the server accept the unit's key. Unit, PublicKey and Boot of r are filled in. While an operator's approval is
// pending Enrol calls waiting, which may be nil, with the reason, and asks again after Config.Poll, until ctx ends. A refusal
// is a fault.EnrolRefused.
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

// Hello is one request of Enrol. reason says why the key waits for an operator; it is empty when the key speaks for the unit.
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
		if errors.As(err, &p) {
			return "", fault.Because(fault.EnrolRefused, p)
		}
		return "", err
	}
	c.learn(reply.Time)
	if reply.Status == record.Enrolled {
		return "", nil
	}
	if reply.Reason == "" {
		reply.Reason = "an operator must approve this key"
	}
	return reply.Reason, nil
}

// Fingerprint is what the server's page shows of the unit's key, and the unit's panel must show while an approval is pending.
func (c *Client) Fingerprint() string {
	return record.Fingerprint(c.c.Key.Public().(ed25519.PublicKey))
}

// Permit asks whether the unit may run a job that destroys. No is a fault.NotReleased.
func (c *Client) Permit(ctx context.Context, job record.Job) error {
	_, err := c.Released(ctx, job)
	return err
}

// Released is Permit, and says of a yes whether an operator gave it for this unit. A server that does not say so did not hear of it.
func (c *Client) Released(ctx context.Context, job record.Job) (bool, error) {
	var reply record.PermitReply
	if err := c.post(ctx, "/v1/permit", record.PermitRequest{Job: job, Boot: c.c.Boot}, &reply); err != nil {
		return false, err
	}
	if !reply.Allowed {
		return false, fault.Newf(fault.NotReleased, "%s", reply.Reason)
	}
	return reply.Released, nil
}

// Credentials asks for this unit's credentials. Each call gives a new generation. No is a fault.NoCredentials.
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

// Confirm tells the server that the credentials of this generation are set and safe on the recovery volume. After it the
// server never hands out credentials to this key again. Confirming the same generation twice is no error.
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

// Send sends events once, without repeating: Queue does that. Events without a unit get this one's name.
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
	err = c.try(ctx, "POST", "/v1/events", body, &reply)
	return reply, err
}

// Document sends a document. Sending it again replaces it.
func (c *Client) Document(ctx context.Context, d record.Document) error {
	d.Boot = c.c.Boot
	if err := d.Validate(); err != nil {
		return err
	}
	return c.post(ctx, "/v1/documents", d, nil)
}

// Refusal is an answer of the server that says no.
type Refusal struct {
	// Status is the HTTP status.
	Status int
	// Problem is what the server said.
	Problem record.Problem
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("the server says: %s (%s, HTTP status %d)", r.Problem.Error, r.Problem.Code, r.Status)
}

// temporary reports whether asking again later may help.
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

// call asks until there is an answer, the patience is over or ctx ends. before is called before each attempt.
func (c *Client) call(ctx context.Context, method, path string, body []byte, into any, before func()) error {
	limit := c.c.Now().Add(c.c.Patience)
	pause := time.Second
	for {
		if before != nil {
			before()
		}
		err := c.try(ctx, method, path, body, into)
		if err == nil {
			return nil
		}
		var p *Refusal
		if errors.As(err, &p) && !p.temporary() {
			return fault.Because(fault.ServerRefused, p)
		}
		if ctx.Err() != nil || c.c.Now().Add(pause).After(limit) || untrusted(err) {
			return fault.Because(fault.NoServer, err)
		}
		c.c.Log.Warn("server does not answer, trying again", "request", path, "error", err.Error(), "pause", pause.String())
		if c.wait(ctx, pause) != nil {
			return fault.Because(fault.NoServer, err)
		}
		pause = min(2*pause, 15*time.Second)
	}
}

// untrusted reports whether err is a certificate that no waiting makes good.
func untrusted(err error) bool {
	var e *tls.CertificateVerificationError
	return errors.As(err, &e)
}

// try asks once; twice after a refusal because of the clock, or when another server answers than before.
func (c *Client) try(ctx context.Context, method, path string, body []byte, into any) error {
	err := c.once(ctx, method, path, body, into)
	var p *Refusal
	switch refused := errors.As(err, &p); {
	case refused && p.Problem.Code == record.ProblemClock:
		c.learn(p.Problem.Time)
	case refused && p.Problem.Code == record.ProblemAudience, errors.Is(err, errOtherServer):
	default:
		return err
	}
	return c.once(ctx, method, path, body, into)
}

// pathTime is what may be asked without a signature. It is asked before the first one, to learn who the server is.
const pathTime = "/v1/time"

func (c *Client) once(ctx context.Context, method, path string, body []byte, into any) error {
	p := c.server()
	err := c.ask(ctx, p, method, path, body, into)
	var r *Refusal
	if errors.Is(err, errOtherServer) || errors.As(err, &r) && r.Problem.Code == record.ProblemAudience {
		c.forget(p)
	}
	return err
}

// ask asks one server once.
func (c *Client) ask(ctx context.Context, p *peer, method, path string, body []byte, into any) error {
	if path != pathTime && p.known() == "" {
		var r record.TimeReply
		start := c.c.Now()
		if err := c.ask(ctx, p, "GET", pathTime, nil, &r); err != nil {
			return err
		}
		c.tell(r, start)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if method != "GET" {
		req.Header.Set("Content-Type", "application/json")
		for k, v := range record.SignRequest(c.c.Key, p.known(), method, path, c.c.Unit, c.now(), body) {
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
		return fmt.Errorf("answer of %s is not valid JSON", path) // the answer may hold a secret
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
