// Package api serves /v1: the requests of units, which they sign with their own keys, and those of operators behind a
// login. openapi.yaml describes the requests. It is served too, and tested against the handlers.
//
// The package verifies the sender of each request and checks sizes and formats. It leaves the decisions to package
// store. It must be served over TLS only, because it hands out credentials. It also holds the server's certificate
// authority.
package api

import (
	"context"
	"crypto/ed25519"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gprovision/factory/limit"
	"gprovision/factory/login"
	"gprovision/factory/notary"
	"gprovision/factory/store"
	"gprovision/factory/vault"
	"gprovision/model/record"
)

//go:generate cp openapi.yaml ../../docs/formats/api/openapi.yaml

//go:embed openapi.yaml
var openAPI []byte

// maxSmall is the size limit for the body of a request without records, in bytes.
const maxSmall = 64 << 10

// Config is what a Server works with.
type Config struct {
	Store *store.DB
	Vault *vault.Vault
	Login *login.Service
	// Audience is the name of this server in the requests that units sign (Authority.Audience).
	Audience string
	// Hub gets every change.
	Hub *Hub
	Log *slog.Logger
	// Now is the clock. nil means time.Now.
	Now func() time.Time
	// ByPerson reports whether an operator must approve each new key, with its fingerprint.
	ByPerson bool
	// Witnesses are asked to cosign the log of certificates.
	Witnesses []notary.Witness
}

// Server answers the requests under /v1.
type Server struct {
	Config
	notary *notary.Notary
	enrols *limit.Limiter
	asks   *limit.Limiter
	// Requests in progress: signed ones, those of units of version 0.1.0, enrolments.
	flight, oldFlight, enrolFlight *limit.Flight
}

// New returns a Server.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{
		Config: c, notary: notary.New(c.Store, c.Log, c.Witnesses...), enrols: limit.New(30, time.Second), asks: limit.New(10, 2*time.Second),
		flight:      limit.NewFlight(flights, flightBytes, flightsPerHost),
		oldFlight:   limit.NewFlight(oldFlights, oldBytes, oldPerHost),
		enrolFlight: limit.NewFlight(enrolFlights, enrolBytes, flightsPerHost),
	}
}

// Route is one kind of request.
type Route struct {
	// Method and Path are those of a ServeMux pattern.
	Method, Path string
	handle       http.HandlerFunc
}

// Routes returns every kind of request that the Server answers.
func (s *Server) Routes() []Route {
	return append([]Route{
		{"GET", "/v1/time", s.time},
		{"GET", "/v1/openapi.yaml", s.openAPI},
		{"POST", "/v1/enrol", s.enrol},
		{"POST", "/v1/permit", s.unit(maxSmall, s.permit)},
		{"POST", "/v1/events", s.unit(record.MaxBody, s.events)},
		{"POST", "/v1/documents", s.unit(record.MaxDocument/3*4+8192, s.document)},
		{"POST", "/v1/credentials", s.unit(maxSmall, s.credentials)},
		{"POST", "/v1/credentials/confirm", s.unit(maxSmall, s.confirm)},
		{"GET", "/v1/units", s.operator(s.units)},
		{"GET", "/v1/units/{unit}", s.operator(s.detail)},
		{"GET", "/v1/units/{unit}/events", s.operator(s.unitEvents)},
		{"GET", "/v1/units/{unit}/documents/{id}", s.operator(s.unitDocument)},
		{"POST", "/v1/units/{unit}/release", s.operator(s.release)},
		{"POST", "/v1/units/{unit}/enrolments/{id}/approve", s.operator(s.approve)},
		{"POST", "/v1/units/{unit}/enrolments/{id}/reject", s.operator(s.reject)},
		{"POST", "/v1/units/{unit}/join", s.operator(s.join)},
		{"GET", "/v1/ports", s.operator(s.ports)},
		{"POST", "/v1/ports/{mac}/release", s.operator(s.releasePort)},
		{"POST", "/v1/ports/{mac}/share", s.operator(s.sharePort)},
		{"POST", "/v1/ports/{mac}/unshare", s.operator(s.unsharePort)},
		{"POST", "/v1/units/{unit}/credentials/read", s.operator(s.read)},
		{"GET", "/v1/changes", s.operator(s.changes)},
	}, s.routesOfErases()...)
}

// Register adds the routes to a mux.
func (s *Server) Register(mux *http.ServeMux) {
	for _, r := range s.Routes() {
		mux.HandleFunc(r.Method+" "+r.Path, r.handle)
	}
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, http.StatusNotFound, record.ProblemNotFound, "there is no such request")
	})
}

func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.serverError(w, nil, err)
		return
	}
	s.raw(w, status, b)
}

func (s *Server) raw(w http.ResponseWriter, status int, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(b)
}

func (s *Server) refuse(w http.ResponseWriter, status int, code, text string) {
	s.answer(w, status, record.Problem{Error: text, Code: code, Time: s.Now().UTC()})
}

// serverError answers with status 500. The cause goes to the log and not to the client.
func (s *Server) serverError(w http.ResponseWriter, r *http.Request, err error) {
	if r != nil && errors.Is(err, context.Canceled) {
		return
	}
	path := ""
	if r != nil {
		path = r.URL.Path
	}
	s.Log.Error("request failed", "path", path, "error", err.Error())
	b, _ := json.Marshal(record.Problem{Error: "the server has trouble of its own, see its log", Code: record.ProblemInternal, Time: s.Now().UTC()})
	s.raw(w, http.StatusInternalServerError, b)
}

func (s *Server) time(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, record.TimeReply{Time: s.Now().UTC()})
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(openAPI)
}

// verify reports whether a signature is valid. If it is not, verify has answered the request.
func (s *Server) verify(w http.ResponseWriter, r *http.Request, key ed25519.PublicKey, st record.Stamp) bool {
	err := st.Verify(key, s.Audience, r.Method, r.URL.RequestURI(), s.Now())
	if err == nil {
		return true
	}
	code := record.ProblemSignature
	switch {
	case errors.Is(err, record.ErrClock):
		code = record.ProblemClock
	case errors.Is(err, record.ErrAudience):
		code = record.ProblemAudience
	}
	if code != record.ProblemClock {
		s.Log.Warn("signature refused", "path", r.URL.Path, "unit", st.Unit, "remote", r.RemoteAddr, "reason", err.Error())
	}
	s.refuse(w, http.StatusUnauthorized, code, err.Error())
	return false
}

// oldScheme reports whether a unit may sign its requests as version 0.1.0 did. If it may not, oldScheme has answered the request.
func (s *Server) oldScheme(w http.ResponseWriter, r *http.Request, unit string) bool {
	may, err := s.Store.OldSigner(r.Context(), unit)
	switch {
	case err != nil:
		s.serverError(w, r, err)
	case !may:
		s.Log.Warn("old signature refused", "path", r.URL.Path, "unit", unit, "remote", r.RemoteAddr)
		s.refuse(w, http.StatusForbidden, record.ProblemOldScheme, "the request is signed as version 0.1.0 did: build the unit's boot artifact and image with a newer one")
	}
	return err == nil && may
}

// readSigned reads the body of a signed request. If ok is false, readSigned has answered the request, usually because the
// body is not the signed one. If the request carries the hash of its body, the signature is checked before anything
// is read. The caller calls leave once it has released the body.
func (s *Server) readSigned(w http.ResponseWriter, r *http.Request, key ed25519.PublicKey, st record.Stamp, most int64) (body []byte, leave func(), ok bool) {
	f := s.flight
	if st.Scheme == record.SchemeV1 {
		if f = s.oldFlight; !s.oldScheme(w, r, st.Unit) {
			return nil, nil, false
		}
	} else if !s.verify(w, r, key, st) {
		return nil, nil, false
	}
	received, leave, ok := s.admit(w, r, f, most)
	if !ok {
		return nil, nil, false
	}
	body, ok = s.body(w, r, received)
	ok = ok && s.checkHash(w, r, &st, body) && (st.Scheme != record.SchemeV1 || s.verify(w, r, key, st))
	if ok {
		if err := s.Store.NoteScheme(r.Context(), st.Unit, st.Scheme); err != nil {
			s.serverError(w, r, err)
			ok = false
		}
	}
	if !ok {
		leave()
		return nil, nil, false
	}
	return body, leave, true
}

// checkHash reports whether a body has the hash in the stamp. If not, checkHash has answered the request. A stamp of the old
// scheme has no hash. It gets that of this body.
func (s *Server) checkHash(w http.ResponseWriter, r *http.Request, st *record.Stamp, body []byte) bool {
	hash := record.BodyHash(body)
	if st.Scheme == record.SchemeV1 {
		st.Hash = hash
	}
	if st.Hash == hash {
		return true
	}
	s.Log.Warn("body refused", "path", r.URL.Path, "unit", st.Unit, "remote", r.RemoteAddr)
	s.refuse(w, http.StatusUnauthorized, record.ProblemSignature, "the body is not the one that was signed")
	return false
}

// unit wraps a handler of signed requests. The handler gets the unit's active key and the verified body.
func (s *Server) unit(most int64, f func(http.ResponseWriter, *http.Request, store.Enrolment, []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		st, err := record.ParseStamp(r.Header.Get)
		if err != nil {
			s.refuse(w, http.StatusUnauthorized, record.ProblemSignature, err.Error())
			return
		}
		// Look up the sender before reading anything large.
		e, err := s.Store.ActiveKey(r.Context(), st.Unit)
		if errors.Is(err, store.ErrNotFound) {
			s.refuse(w, http.StatusForbidden, record.ProblemNotEnrolled, "no key is enrolled for this unit")
			return
		}
		if err != nil {
			s.serverError(w, r, err)
			return
		}
		body, leave, ok := s.readSigned(w, r, e.PublicKey, st, most)
		if !ok {
			return
		}
		defer leave()
		f(w, r, e, body)
	}
}

func (s *Server) enrol(w http.ResponseWriter, r *http.Request) {
	if !s.enrols.Allow(limit.Remote(r.RemoteAddr)) {
		w.Header().Set("Retry-After", "5")
		s.refuse(w, http.StatusTooManyRequests, record.ProblemBusy, "too many requests from this address")
		return
	}
	st, err := record.ParseStamp(r.Header.Get)
	if err != nil {
		s.refuse(w, http.StatusUnauthorized, record.ProblemSignature, err.Error())
		return
	}
	if st.Scheme == record.SchemeV1 && !s.oldScheme(w, r, st.Unit) {
		return
	}
	received, leave, ok := s.admit(w, r, s.enrolFlight, maxSmall)
	if !ok {
		return
	}
	defer leave()
	body, ok := s.body(w, r, received)
	if !ok || !s.checkHash(w, r, &st, body) {
		return
	}
	var q record.EnrolRequest
	if err := parse(body, &q); err != nil {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
		return
	}
	if err := q.Validate(); err != nil || q.Unit != st.Unit {
		if err == nil {
			err = errors.New("the header and the body name different units")
		}
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
		return
	}
	if !s.verify(w, r, q.PublicKey, st) {
		return
	}
	e, reason, err := s.Store.Enrol(r.Context(), store.EnrolInput{Unit: q.Unit, PublicKey: q.PublicKey, Token: q.Token.Reveal(), Boot: q.Boot,
		Platform: q.Platform, SerialField: q.SerialField, MACs: q.MACs, BMCMACs: q.BMCMACs, Remote: limit.Remote(r.RemoteAddr),
		Held: store.Held{Generation: q.Held.Generation, Provisioned: q.Held.Provisioned}, ByPerson: s.ByPerson})
	switch {
	case errors.Is(err, store.ErrCompleted):
		s.Log.Warn("enrolment refused", "unit", q.Unit, "remote", r.RemoteAddr, "reason", err.Error())
		s.refuse(w, http.StatusForbidden, record.ProblemCompleted, err.Error())
		return
	case errors.Is(err, store.ErrRejected):
		s.refuse(w, http.StatusForbidden, record.ProblemRejected, err.Error())
		return
	case err != nil:
		s.serverError(w, r, err)
		return
	}
	reply := record.EnrolReply{Unit: e.Unit, Status: record.Enrolled, Time: s.Now().UTC()}
	status := http.StatusOK
	if e.Status != store.Active {
		reply.Status, reply.Reason, status = record.Pending, reason, http.StatusAccepted
	}
	s.Log.Info("enrolment", "unit", e.Unit, "status", string(reply.Status), "reason", reply.Reason, "key", e.Fingerprint, "remote", r.RemoteAddr)
	if reply.Status == record.Enrolled || e.Created.Equal(e.Seen) { // a waiting key asks every few seconds
		s.Hub.Publish(e.Unit)
	}
	s.answer(w, status, reply)
}

// parse parses one JSON value with nothing after it. Its errors do not quote the input.
func parse(b []byte, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return errors.New("the body is not valid JSON of the expected form")
	}
	return nil
}

func (s *Server) permit(w http.ResponseWriter, r *http.Request, e store.Enrolment, body []byte) {
	var q record.PermitRequest
	err := parse(body, &q)
	if err == nil {
		err = record.CheckBoot(q.Boot)
	}
	if err == nil && q.Job != record.JobProvision {
		err = fmt.Errorf("there is no permission for job %q", q.Job)
	}
	if err != nil {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
		return
	}
	if s.vaultSaysNo(w, r, e, s.Vault.Ready()) { // before the unit is erased for nothing
		return
	}
	reply := record.PermitReply{Allowed: true}
	switch err := s.Store.Permit(r.Context(), e.Unit, e.ID, q.Boot); {
	case errors.Is(err, store.ErrCompleted), errors.Is(err, store.ErrConfirmed):
		reply = record.PermitReply{Reason: err.Error()}
	case err != nil:
		s.serverError(w, r, err)
		return
	default:
		u, err := s.Store.Unit(r.Context(), e.Unit)
		if err != nil {
			s.serverError(w, r, err)
			return
		}
		reply.Released = !u.Released.IsZero()
	}
	s.Log.Info("permit", "unit", e.Unit, "job", string(q.Job), "allowed", reply.Allowed, "released", reply.Released)
	s.Hub.Publish(e.Unit)
	s.answer(w, http.StatusOK, reply)
}

func (s *Server) events(w http.ResponseWriter, r *http.Request, e store.Enrolment, body []byte) {
	asked := r.Header.Get(record.HeaderUnit) // another name of the same unit, after its mainboard was changed
	var q record.Batch
	if err := parse(body, &q); err != nil {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
		return
	}
	if len(q.Events) > record.MaxBatch {
		s.refuse(w, http.StatusRequestEntityTooLarge, record.ProblemTooLarge, fmt.Sprintf("more than %d events", record.MaxBatch))
		return
	}
	for i, ev := range q.Events {
		err := ev.Validate()
		if err == nil && ev.Unit != "" && ev.Unit != e.Unit && ev.Unit != asked {
			err = fmt.Errorf("the event is of unit %q", ev.Unit)
		}
		if err == nil {
			if b, _ := json.Marshal(ev.Attrs); len(b) > record.MaxEvent {
				err = fmt.Errorf("the attributes have %d bytes", len(b))
			}
		}
		if err != nil {
			s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, fmt.Sprintf("event %d: %v", i, err))
			return
		}
	}
	stored, err := s.Store.AddEvents(r.Context(), e.Unit, q.Events)
	if s.noRoom(w, e.Unit, err) {
		return
	}
	if err != nil {
		s.serverError(w, r, err)
		return
	}
	for _, ev := range q.Events {
		if st, ok := record.StateOf(ev); ok && st.Phase != record.Step {
			s.Log.Info("state", "unit", e.Unit, "state", st.String(), "code", st.Code, "text", st.Text)
		}
	}
	if stored > 0 {
		s.Hub.Publish(e.Unit)
	}
	s.answer(w, http.StatusOK, record.BatchReply{Stored: stored, Known: len(q.Events) - stored})
}

func (s *Server) document(w http.ResponseWriter, r *http.Request, e store.Enrolment, body []byte) {
	var d record.Document
	err := parse(body, &d)
	if err == nil {
		err = d.Validate()
	}
	if err != nil {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
		return
	}
	err = s.Store.AddDocument(r.Context(), e.Unit, d)
	if s.noRoom(w, e.Unit, err) {
		return
	}
	if err != nil {
		s.serverError(w, r, err)
		return
	}
	s.Log.Info("document", "unit", e.Unit, "name", d.Name, "type", d.Type, "bytes", len(d.Body))
	s.Hub.Publish(e.Unit)
	s.answer(w, http.StatusOK, struct{}{})
}

func (s *Server) credentials(w http.ResponseWriter, r *http.Request, e store.Enrolment, body []byte) {
	if r.TLS == nil { // the second lock on this door
		s.refuse(w, http.StatusForbidden, record.ProblemSignature, "credentials are given over TLS only")
		return
	}
	var q record.CredentialsRequest
	err := parse(body, &q)
	if err == nil {
		err = record.CheckBoot(q.Boot)
	}
	if err != nil {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
		return
	}
	if !s.asks.Allow(e.Unit) {
		s.refuse(w, http.StatusTooManyRequests, record.ProblemBusy, "too many requests for credentials")
		return
	}
	c, err := s.Vault.Issue(r.Context(), e.Unit, e.ID)
	if s.vaultSaysNo(w, r, e, err) {
		return
	}
	wire, err := c.Wire()
	if err != nil {
		s.serverError(w, r, err)
		return
	}
	s.Log.Info("credentials given", "unit", e.Unit, "generation", c.Generation)
	s.Hub.Publish(e.Unit)
	s.raw(w, http.StatusOK, wire)
}

func (s *Server) confirm(w http.ResponseWriter, r *http.Request, e store.Enrolment, body []byte) {
	var q record.ConfirmRequest
	if err := parse(body, &q); err != nil || q.Generation == 0 || q.Generation > 1<<62 {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, "the body names no generation")
		return
	}
	if s.vaultSaysNo(w, r, e, s.Vault.Confirm(r.Context(), e.Unit, e.ID, q.Generation)) {
		return
	}
	s.Log.Info("credentials confirmed", "unit", e.Unit, "generation", q.Generation)
	s.Hub.Publish(e.Unit)
	s.answer(w, http.StatusOK, struct{}{})
}

// vaultSaysNo reports whether err is not nil. If so, it has answered the request of the unit with enrolment e.
func (s *Server) vaultSaysNo(w http.ResponseWriter, r *http.Request, e store.Enrolment, err error) bool {
	if err == nil {
		return false
	}
	for sentinel, p := range map[error]struct {
		status int
		code   string
	}{
		vault.ErrNoOperator:  {http.StatusConflict, record.ProblemNoOperator},
		store.ErrConfirmed:   {http.StatusForbidden, record.ProblemConfirmed},
		store.ErrCompleted:   {http.StatusForbidden, record.ProblemConfirmed},
		store.ErrNotEnrolled: {http.StatusForbidden, record.ProblemNotEnrolled},
		store.ErrGeneration:  {http.StatusConflict, record.ProblemGeneration},
	} {
		if errors.Is(err, sentinel) {
			s.Log.Warn("credentials refused", "unit", e.Unit, "reason", err.Error())
			s.refuse(w, p.status, p.code, sentinel.Error())
			return true
		}
	}
	s.serverError(w, r, err)
	return true
}

// operator wraps a handler of operators' requests. A request that changes something must carry the token of the session.
func (s *Server) operator(f func(http.ResponseWriter, *http.Request, login.Who)) http.HandlerFunc {
	return s.operatorUpTo(maxSmall, f)
}

// operatorUpTo is operator for a body of at most so many bytes.
func (s *Server) operatorUpTo(most int64, f func(http.ResponseWriter, *http.Request, login.Who)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, err := s.Login.From(r)
		switch {
		case errors.Is(err, login.ErrSlow):
			w.Header().Set("Retry-After", "60")
			s.refuse(w, http.StatusTooManyRequests, record.ProblemBusy, err.Error())
			return
		case err != nil && !errors.Is(err, login.ErrWrong): // not about the login: the store cannot be read
			s.serverError(w, r, err)
			return
		case err != nil:
			// No WWW-Authenticate: a browser that asked for a password would also send it with forged requests.
			s.refuse(w, http.StatusUnauthorized, record.ProblemLogin, "an operator's login is needed: "+err.Error())
			return
		}
		if r.Method != "GET" {
			r.Body = http.MaxBytesReader(w, r.Body, most)
			if !who.Genuine(r) {
				s.refuse(w, http.StatusForbidden, record.ProblemLogin, "the request does not carry the token of its session")
				return
			}
		}
		f(w, r, who)
	}
}

// succeeded reports whether err is nil. If it is not, succeeded has answered the request.
func (s *Server) succeeded(w http.ResponseWriter, r *http.Request, err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, store.ErrNotFound):
		s.refuse(w, http.StatusNotFound, record.ProblemNotFound, "there is no such thing")
	case errors.Is(err, store.ErrCompleted):
		s.refuse(w, http.StatusConflict, record.ProblemCompleted, err.Error())
	case errors.Is(err, store.ErrInput):
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
	case errors.Is(err, store.ErrFingerprint):
		s.refuse(w, http.StatusConflict, record.ProblemFingerprint, err.Error())
	case errors.Is(err, store.ErrTaken):
		s.refuse(w, http.StatusConflict, record.ProblemTaken, err.Error())
	case errors.Is(err, store.ErrLost):
		s.refuse(w, http.StatusConflict, record.ProblemLost, err.Error())
	default:
		s.serverError(w, r, err)
	}
	return false
}

// UnitView is a unit as operators see it.
type UnitView struct {
	store.Unit
	// State is the unit's state in words.
	State string `json:"state"`
	Job   string `json:"job"`
	Phase string `json:"phase"`
	Step  string `json:"step"`
	// Percent is the progress, 0 to 100, or -1 if unknown.
	Percent int    `json:"percent"`
	Code    string `json:"code"`
	Text    string `json:"text"`
	Hint    string `json:"hint"`
}

// View returns a unit as operators see it.
func View(u store.Unit) UnitView {
	st := u.State
	return UnitView{u, st.String(), string(st.Job), string(st.Phase), st.Step, st.Percent, st.Code, st.Text, st.Hint}
}

func (s *Server) units(w http.ResponseWriter, r *http.Request, _ login.Who) {
	offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
	units, total, err := s.Store.Units(r.Context(), offset, store.MaxUnits)
	if !s.succeeded(w, r, err) {
		return
	}
	out := struct {
		Units   []UnitView    `json:"units"`
		Total   int           `json:"total"`
		Waiting []store.Token `json:"waiting"`
	}{Units: []UnitView{}, Total: total}
	for _, u := range units {
		out.Units = append(out.Units, View(u))
	}
	if out.Waiting, err = s.Store.Tokens(r.Context()); s.succeeded(w, r, err) {
		s.answer(w, http.StatusOK, out)
	}
}

// Detail is everything about one unit except its events and the contents of documents and credentials.
type Detail struct {
	Unit       UnitView          `json:"unit"`
	Facts      []store.Fact      `json:"facts"`
	Enrolments []store.Enrolment `json:"enrolments"`
	Documents  []store.Document  `json:"documents"`
	Secrets    []store.Secret    `json:"credentials"`
	Readings   []store.Reading   `json:"readings"`
	Actions    []store.Action    `json:"actions"`
	Ports      []store.Port      `json:"ports"`
	Aliases    []store.Alias     `json:"aliases"`
	Erases     []store.Erase     `json:"erases"`
	// Before is what its drives were before its erases.
	Before []store.DriveBefore `json:"drivesBefore"`
}

// ReadDetail collects everything about one unit, or returns store.ErrNotFound.
func ReadDetail(ctx context.Context, db *store.DB, unit string) (Detail, error) {
	u, err := db.Unit(ctx, unit)
	if err != nil {
		return Detail{}, err
	}
	d := Detail{Unit: View(u)}
	var errs [10]error
	d.Facts, errs[0] = db.Facts(ctx, unit)
	d.Enrolments, errs[1] = db.Enrolments(ctx, unit)
	d.Documents, errs[2] = db.Documents(ctx, unit)
	d.Secrets, errs[3] = db.Secrets(ctx, unit)
	d.Readings, errs[4] = db.Readings(ctx, unit)
	d.Actions, errs[5] = db.Actions(ctx, unit)
	d.Ports, errs[6] = db.Ports(ctx, unit)
	d.Aliases, errs[7] = db.Aliases(ctx, unit)
	d.Erases, errs[8] = db.Erases(ctx, unit)
	d.Before, errs[9] = db.DrivesBefore(ctx, unit)
	return d, errors.Join(errs[:]...)
}

func (s *Server) detail(w http.ResponseWriter, r *http.Request, _ login.Who) {
	d, err := ReadDetail(r.Context(), s.Store, r.PathValue("unit"))
	if s.succeeded(w, r, err) {
		s.answer(w, http.StatusOK, d)
	}
}

func (s *Server) unitEvents(w http.ResponseWriter, r *http.Request, _ login.Who) {
	q := r.URL.Query()
	before, _ := strconv.ParseInt(q.Get("before"), 10, 64)
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 || n > 1000 {
		n = 200
	}
	var kinds []record.Kind
	for _, k := range q["kind"] {
		kinds = append(kinds, record.Kind(k))
	}
	if len(kinds) > 8 {
		kinds = kinds[:8]
	}
	if _, err := s.Store.Unit(r.Context(), r.PathValue("unit")); !s.succeeded(w, r, err) {
		return
	}
	list, more, err := s.Store.Events(r.Context(), r.PathValue("unit"), before, n, kinds...)
	if s.succeeded(w, r, err) {
		s.answer(w, http.StatusOK, struct {
			Events []store.Event `json:"events"`
			More   bool          `json:"more"`
		}{list, more})
	}
}

func (s *Server) unitDocument(w http.ResponseWriter, r *http.Request, _ login.Who) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	d, err := s.Store.Document(r.Context(), r.PathValue("unit"), id)
	if s.succeeded(w, r, err) {
		ServeDocument(w, d)
	}
}

// ServeDocument sends a unit's document. The content comes from a unit, so a browser may save it or show it as text,
// but must never run it.
func ServeDocument(w http.ResponseWriter, d store.Document) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename*=UTF-8''%s", escape(d.Name)))
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(d.Body)))
	w.Write(d.Body)
}

// escape encodes a file name for a header (RFC 5987).
func escape(s string) string {
	out := ""
	for _, c := range []byte(s) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '-' || c == '_' {
			out += string(rune(c))
		} else {
			out += fmt.Sprintf("%%%02X", c)
		}
	}
	return out
}

func (s *Server) release(w http.ResponseWriter, r *http.Request, who login.Who) {
	unit := r.PathValue("unit")
	if s.succeeded(w, r, s.Store.Release(r.Context(), unit, who.Operator)) {
		s.Log.Info("released", "unit", unit, "operator", who.Operator)
		s.Hub.Publish(unit)
		s.answer(w, http.StatusOK, struct{}{})
	}
}

// readInput reads the body of an operator's request, which may be empty. It reports whether the body is valid. If not,
// readInput has answered the request.
func (s *Server) readInput(w http.ResponseWriter, r *http.Request, into any) bool {
	b, err := io.ReadAll(r.Body)
	if err == nil && len(b) > 0 {
		err = parse(b, into)
	}
	if err != nil {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, "the body is not valid")
	}
	return err == nil
}

// ApproveRequest is the body of an operator's approval.
type ApproveRequest struct {
	// Fingerprint is the fingerprint of the key, as the unit's panel shows it. It may be empty, except with Config.ByPerson.
	Fingerprint string `json:"fingerprint"`
}

func (s *Server) approve(w http.ResponseWriter, r *http.Request, who login.Who) {
	var q ApproveRequest
	if !s.readInput(w, r, &q) {
		return
	}
	unit := r.PathValue("unit")
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	err := NeedFingerprint(s.ByPerson, q.Fingerprint)
	if err == nil {
		err = s.Store.Approve(r.Context(), unit, id, who.Operator, q.Fingerprint)
	}
	s.finishChange(w, r, who, "approved", unit, err)
}

// NeedFingerprint returns store.ErrFingerprint if an approval needs a fingerprint and has none.
func NeedFingerprint(byPerson bool, fingerprint string) error {
	if byPerson && strings.TrimSpace(fingerprint) == "" {
		return store.ErrFingerprint
	}
	return nil
}

// finishChange completes an operator's change: it logs the change and notifies the watchers.
func (s *Server) finishChange(w http.ResponseWriter, r *http.Request, who login.Who, what, unit string, err error) {
	if s.succeeded(w, r, err) {
		s.Log.Info(what, "unit", unit, "operator", who.Operator)
		s.Hub.Publish(unit)
		s.answer(w, http.StatusOK, struct{}{})
	}
}

func (s *Server) reject(w http.ResponseWriter, r *http.Request, who login.Who) {
	unit := r.PathValue("unit")
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	s.finishChange(w, r, who, "rejected", unit, s.Store.Reject(r.Context(), unit, id, who.Operator))
}

// JoinRequest is the body of an operator's request to make a mainboard part of a unit.
type JoinRequest struct {
	// Serial is the serial number of the new mainboard. MAC is the address of its port. One of them may be empty.
	Serial string `json:"serial"`
	MAC    string `json:"mac"`
}

func (s *Server) join(w http.ResponseWriter, r *http.Request, who login.Who) {
	var q JoinRequest
	if s.readInput(w, r, &q) {
		unit := r.PathValue("unit")
		s.finishChange(w, r, who, "mainboard joined", unit, s.Store.Join(r.Context(), unit, q.Serial, q.MAC, who.Operator))
	}
}

// PortList is the list of ports with their units, and the list of adapters that serve many units.
type PortList struct {
	Ports  []store.Port       `json:"ports"`
	Shared []store.SharedPort `json:"shared"`
}

// ReadPorts returns all ports.
func ReadPorts(ctx context.Context, db *store.DB) (PortList, error) {
	var l PortList
	var errs [2]error
	l.Ports, errs[0] = db.Ports(ctx, "")
	l.Shared, errs[1] = db.SharedPorts(ctx)
	return l, errors.Join(errs[:]...)
}

func (s *Server) ports(w http.ResponseWriter, r *http.Request, _ login.Who) {
	l, err := ReadPorts(r.Context(), s.Store)
	if s.succeeded(w, r, err) {
		s.answer(w, http.StatusOK, l)
	}
}

func (s *Server) releasePort(w http.ResponseWriter, r *http.Request, who login.Who) {
	mac, err := record.CleanMAC(r.PathValue("mac"))
	if err == nil {
		err = s.Store.ReleasePort(r.Context(), mac, who.Operator)
	} else {
		err = store.ErrNotFound
	}
	s.finishChange(w, r, who, "port released", "", err)
}

// ShareRequest is the body of an operator's request to list an adapter that serves many units.
type ShareRequest struct {
	Note string `json:"note"`
}

func (s *Server) sharePort(w http.ResponseWriter, r *http.Request, who login.Who) {
	var q ShareRequest
	if s.readInput(w, r, &q) {
		s.finishChange(w, r, who, "adapter shared", "", s.Store.SharePort(r.Context(), r.PathValue("mac"), q.Note, who.Operator))
	}
}

func (s *Server) unsharePort(w http.ResponseWriter, r *http.Request, who login.Who) {
	s.finishChange(w, r, who, "adapter not shared", "", s.Store.UnsharePort(r.Context(), strings.ToLower(r.PathValue("mac"))))
}

// ReadRequest is the body of an operator's request to read credentials.
type ReadRequest struct {
	// Generation is the number of the credentials. 0 means the newest confirmed ones, or the newest of all if none are confirmed.
	Generation uint64 `json:"generation"`
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, who login.Who) {
	var q ReadRequest
	if !s.readInput(w, r, &q) {
		return
	}
	if q.Generation > 1<<62 {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, "the body is not valid")
		return
	}
	unit := r.PathValue("unit")
	v, err := s.Store.ReadSecret(r.Context(), unit, q.Generation, who.Operator, limit.Remote(r.RemoteAddr))
	if s.succeeded(w, r, err) {
		s.Log.Warn("credentials read", "unit", unit, "generation", v.Generation, "operator", who.Operator, "remote", r.RemoteAddr)
		s.Hub.Publish(unit)
		s.answer(w, http.StatusOK, v)
	}
}

// changes streams the names of units that change, as server-sent events.
func (s *Server) changes(w http.ResponseWriter, r *http.Request, who login.Who) {
	Stream(w, r, s.Hub, s.Login, who)
}

// Stream sends the name of each unit that changes as a server-sent event named "unit", until the client disconnects
// or the login ends. An empty name means that changes were missed. A comment every 15 seconds keeps the connection
// alive.
func Stream(w http.ResponseWriter, r *http.Request, hub *Hub, logins *login.Service, who login.Who) {
	ch, end := hub.Subscribe()
	defer end()
	live, stop := logins.Live(r.Context(), who)
	defer stop()
	c := http.NewResponseController(w)
	c.SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	send := func(s string) bool {
		_, err := io.WriteString(w, s)
		return err == nil && c.Flush() == nil
	}
	if !send(": ready\n\n") {
		return
	}
	for {
		select {
		case unit := <-ch:
			b, err := json.Marshal(unit)
			if err != nil || !send("event: unit\ndata: "+string(b)+"\n\n") {
				return
			}
		case <-tick.C:
			if !send(": still here\n\n") {
				return
			}
		case <-live.Done():
			return
		}
	}
}
