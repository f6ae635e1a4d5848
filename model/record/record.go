// Package record holds what a unit tells the factory server and what the server answers: the wire types of /v1, their
// limits, and the way a request is signed.
//
// It does no input or output and keeps no state: unit/report sends these types, factory/api takes them. Unknown JSON keys
// are ignored on both sides, so that an older unit can talk to a newer server. Secrets are the one exception to plain
// encoding: see Credentials. The format is described in docs/formats/records.md, the requests in docs/formats/api.
package record

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"gprovision/model/secret"
)

// Limits of one request. A server refuses what is larger; a unit must not send it.
const (
	// MaxUnit is the largest length of a unit's name in bytes.
	MaxUnit = 64
	// MaxBoot is the largest length of a boot identifier in bytes.
	MaxBoot = 64
	// MaxBatch is the largest number of events in one Batch.
	MaxBatch = 500
	// MaxMessage is the largest length of an event's message in bytes. Longer ones are cut by Event.Trim.
	MaxMessage = 8 << 10
	// MaxEvent is the largest size of one event as JSON, in bytes.
	MaxEvent = 64 << 10
	// MaxBody is the largest body of any request but a document, in bytes.
	MaxBody = 4 << 20
	// MaxDocument is the largest document, in bytes before base64.
	MaxDocument = 8 << 20
	// MaxName is the largest length of a document's name or type in bytes.
	MaxName = 128
	// MaxMACs is the largest number of hardware addresses of one unit.
	MaxMACs = 64
)

// Kind says what an event is about.
type Kind string

// The kinds of events.
const (
	// KindLog is a log record: Level and Message, any Attrs.
	KindLog Kind = "log"
	// KindState is a change of what the unit is doing. Its Attrs are those of State.
	KindState Kind = "state"
	// KindFact is something known about the unit: Attrs "name" and "value". See the Fact names.
	KindFact Kind = "fact"
	// KindQA is one line of the check against the bill of materials: Attrs "name", "found", "expected", "rule", "ok",
	// "checked", which is missing in lines of older units, and "try", which counts the checks of a boot.
	KindQA Kind = "qa"
	// KindDocument announces a document that was sent on its own: Attrs "name", "type", "sha256".
	KindDocument Kind = "document"
)

// Source says how the unit knows what an event says.
type Source string

// The sources of events.
const (
	// Observed means that the unit saw it itself.
	Observed Source = "observed"
	// Requested means that somebody asked for it; whether it is so was not looked at.
	Requested Source = "requested"
	// Inferred means that the unit concluded it from something else.
	Inferred Source = "inferred"
)

// Names of facts that the server understands. Others are stored and shown as they are.
const (
	// FactPlatform is the name of the unit's platform, a string.
	FactPlatform = "platform"
	// FactMACs is the list of hardware addresses of the unit's ports.
	FactMACs = "macs"
	// FactBMCMACs is the list of hardware addresses of the unit's management controllers.
	FactBMCMACs = "bmcMacs"
	// FactBMC is what the unit's management controller is and has: versions, inventory, ports, accounts, without passwords.
	FactBMC = "bmc"
	// FactBMCPassword says whose password was set at the management controller, and how far that is proved.
	FactBMCPassword = "bmcPassword"
	// FactDefects is the list of what is wrong with a unit that was started all the same, empty if nothing is: each as its code, a colon
	// and a sentence. It is that of the last normal boot.
	FactDefects = "defects"
)

// Event is one record of a unit. (Unit, Boot, Seq) identifies it: the server counts each one once, however often it comes.
type Event struct {
	// Unit is the unit's name, mostly its serial number. It may be empty while the unit does not know it: the key that
	// signed the request says whose event it is.
	Unit string `json:"unit,omitempty"`
	// Boot identifies one run of the kernel.
	Boot string `json:"boot"`
	// Seq counts the events of one boot, from 1.
	Seq uint64 `json:"seq"`
	// Time is the unit's clock when the event was made.
	Time time.Time `json:"time"`
	// Kind says what the event is about.
	Kind Kind `json:"kind"`
	// Source says how the unit knows.
	Source Source `json:"source"`
	// Level is that of log/slog in capitals (DEBUG, INFO, WARN, ERROR), empty for none.
	Level string `json:"level,omitempty"`
	// Message is a sentence or constant text.
	Message string `json:"message,omitempty"`
	// Attrs are further values by name.
	Attrs map[string]any `json:"attrs,omitempty"`
}

// Validate returns an error unless e can be stored.
func (e Event) Validate() error {
	if e.Unit != "" {
		if err := CheckUnit(e.Unit); err != nil {
			return err
		}
	}
	if err := CheckBoot(e.Boot); err != nil {
		return err
	}
	if e.Seq == 0 || e.Seq > 1<<62 {
		return fmt.Errorf("event sequence %d, want 1 or more", e.Seq)
	}
	switch e.Kind {
	case KindLog, KindState, KindFact, KindQA, KindDocument:
	default:
		return fmt.Errorf("event kind %q is not known", e.Kind)
	}
	switch e.Source {
	case Observed, Requested, Inferred:
	default:
		return fmt.Errorf("event source %q is not known", e.Source)
	}
	if len(e.Level) > 16 {
		return errors.New("event level is longer than 16 bytes")
	}
	if len(e.Message) > MaxMessage {
		return fmt.Errorf("event message has %d bytes, want at most %d", len(e.Message), MaxMessage)
	}
	return nil
}

// Trim returns e made small enough for the limits: a long message is cut, and Attrs that are too large or cannot be
// encoded are replaced by one that says so.
func (e Event) Trim() Event {
	if len(e.Message) > MaxMessage {
		const mark = " [cut]"
		e.Message = strings.ToValidUTF8(e.Message[:MaxMessage-len(mark)], "") + mark
	}
	if len(e.Level) > 16 {
		e.Level = e.Level[:16]
	}
	if len(e.Attrs) == 0 {
		return e
	}
	b, err := json.Marshal(e.Attrs)
	switch {
	case err != nil:
		e.Attrs = map[string]any{"attrsDropped": err.Error()}
	case len(b) > MaxEvent-MaxMessage-4096:
		e.Attrs = map[string]any{"attrsDropped": fmt.Sprintf("%d bytes are too many", len(b))}
	}
	return e
}

// Job is what a unit is doing, in a state event.
type Job string

// The jobs that state events tell of.
const (
	JobProvision Job = "provision"
	JobRestore   Job = "restore"
	JobRepair    Job = "repair"
	JobErase     Job = "erase"
	JobBoot      Job = "boot"
	JobRunning   Job = "running" // the installed system is up
)

// Phase is where a job stands, in a state event.
type Phase string

// The phases of a job.
const (
	Started   Phase = "started"
	Step      Phase = "step"
	Succeeded Phase = "succeeded"
	Failed    Phase = "failed"
)

// State is the content of a state event.
type State struct {
	// Job is what the unit is doing.
	Job Job
	// Phase is where the job stands.
	Phase Phase
	// Step is the name of the running step, for Phase Step.
	Step string
	// Percent is how far the step or job is, 0 to 100; negative: not known.
	Percent int
	// Code, Text and Hint are those of a fault (package fault), for Phase Failed.
	Code, Text, Hint string
}

// String returns the state as people read it: "provision started", "restore: write-main 40%".
func (s State) String() string {
	if s.Job == "" {
		return "unknown"
	}
	switch s.Phase {
	case Step:
		if s.Percent >= 0 {
			return fmt.Sprintf("%s: %s %d%%", s.Job, s.Step, s.Percent)
		}
		return fmt.Sprintf("%s: %s", s.Job, s.Step)
	case "":
		return string(s.Job)
	case Started:
		if s.Job == JobRunning {
			return "running"
		}
	}
	return string(s.Job) + " " + string(s.Phase)
}

// Attrs returns s as the Attrs of a state event. Empty values are left out.
func (s State) Attrs() map[string]any {
	m := map[string]any{"job": string(s.Job), "state": string(s.Phase)}
	for k, v := range map[string]string{"step": s.Step, "code": s.Code, "text": s.Text, "hint": s.Hint} {
		if v != "" {
			m[k] = v
		}
	}
	if s.Percent >= 0 {
		m["percent"] = s.Percent
	}
	return m
}

// StateOf returns the content of a state event. It reports false for events of other kinds and for those without a job.
// The strings of the result are cut to sensible lengths; nothing else about them is checked.
func StateOf(e Event) (State, bool) {
	if e.Kind != KindState {
		return State{}, false
	}
	str := func(k string, max int) string {
		v, _ := e.Attrs[k].(string)
		if len(v) > max {
			v = strings.ToValidUTF8(v[:max], "")
		}
		return v
	}
	s := State{
		Job: Job(str("job", 32)), Phase: Phase(str("state", 32)), Step: str("step", 64), Percent: -1,
		Code: str("code", 16), Text: str("text", 1024), Hint: str("hint", 1024),
	}
	percent := -1.0
	switch p := e.Attrs["percent"].(type) {
	case float64: // from JSON
		percent = p
	case int:
		percent = float64(p)
	case int64: // from a log
		percent = float64(p)
	}
	if percent >= 0 && percent <= 100 {
		s.Percent = int(percent)
	}
	return s, s.Job != ""
}

// Batch is the body of POST /v1/events.
type Batch struct {
	Events []Event `json:"events"`
}

// BatchReply is the answer to a Batch: every event of it is stored now.
type BatchReply struct {
	// Stored is how many events were new.
	Stored int `json:"stored"`
	// Known is how many events the server had already.
	Known int `json:"known"`
}

// TimeReply is the answer to GET /v1/time.
type TimeReply struct {
	// Time is the server's clock in UTC.
	Time time.Time `json:"time"`
}

// EnrolRequest is the body of POST /v1/enrol. The request is signed with the key that it brings. Wire gives the body:
// plain JSON encoding hides the token.
type EnrolRequest struct {
	// Unit is the name under which the unit wants to be known, mostly its serial number.
	Unit string `json:"unit"`
	// Token is the one-time token of the kernel argument enrol=. Without one an operator must approve.
	Token secret.Secret `json:"token,omitempty"`
	// PublicKey is the unit's Ed25519 public key, 32 bytes (base64 in JSON).
	PublicKey []byte `json:"publicKey"`
	// Boot identifies this run of the kernel.
	Boot string `json:"boot"`
	// Platform is the name of the unit's platform, empty if it is not known yet.
	Platform string `json:"platform,omitempty"`
	// MACs are the hardware addresses of the unit's ports, such as 52:54:00:12:34:56.
	MACs []string `json:"macs,omitempty"`
	// BMCMACs are those of its management controllers.
	BMCMACs []string `json:"bmcMacs,omitempty"`
	// Build is the build number of the running boot artifact, 0 for unknown.
	Build uint64 `json:"build,omitempty"`
	// SerialField is the keyword of the appliance table that Unit comes from, such as FirmwareSerial; empty for unknown.
	SerialField string `json:"serialField,omitempty"`
	// Held is what the unit has from an earlier time. A server that was restored from a backup may not know it.
	Held Held `json:"held,omitzero"`
}

// Held is what a unit has from an earlier time.
type Held struct {
	// Generation is that of the credentials that are set on the unit, 0 for unknown.
	Generation uint64 `json:"generation,omitempty"`
	// Provisioned reports whether the unit was provisioned to the end.
	Provisioned bool `json:"provisioned,omitempty"`
}

// Validate returns an error unless r can be considered.
func (r EnrolRequest) Validate() error {
	if err := CheckUnit(r.Unit); err != nil {
		return err
	}
	if err := CheckBoot(r.Boot); err != nil {
		return err
	}
	if len(r.PublicKey) != 32 { // ed25519.PublicKeySize
		return fmt.Errorf("public key has %d bytes, want 32", len(r.PublicKey))
	}
	if len(r.Token) > 128 {
		return errors.New("token is longer than 128 bytes")
	}
	if len(r.Platform) > MaxName {
		return fmt.Errorf("platform is longer than %d bytes", MaxName)
	}
	if len(r.SerialField) > MaxName || !printable(r.SerialField) {
		return fmt.Errorf("serialField, want at most %d printable characters", MaxName)
	}
	if len(r.MACs) > MaxMACs || len(r.BMCMACs) > MaxMACs {
		return fmt.Errorf("more than %d hardware addresses", MaxMACs)
	}
	for _, list := range [][]string{r.MACs, r.BMCMACs} {
		for _, m := range list {
			if _, err := CleanMAC(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// Wire returns r as JSON with its token in clear, for the body of the request and for nothing else.
func (r EnrolRequest) Wire() ([]byte, error) {
	type plain EnrolRequest
	return json.Marshal(struct {
		plain
		Token string `json:"token,omitempty"`
	}{plain(r), r.Token.Reveal()})
}

// EnrolStatus is the server's decision about a key.
type EnrolStatus string

// The answers to an enrolment.
const (
	// Enrolled means that the key speaks for the unit from now on.
	Enrolled EnrolStatus = "enrolled"
	// Pending means that an operator has to approve first. The same request may be sent again.
	Pending EnrolStatus = "pending"
)

// EnrolReply is the answer to an EnrolRequest that was not refused.
type EnrolReply struct {
	// Unit is the name under which the unit is known.
	Unit string `json:"unit"`
	// Status is the decision.
	Status EnrolStatus `json:"status"`
	// Reason says why the status is Pending.
	Reason string `json:"reason,omitempty"`
	// Time is the server's clock in UTC.
	Time time.Time `json:"time"`
}

// PermitRequest is the body of POST /v1/permit: may this unit run a job that destroys?
type PermitRequest struct {
	// Job is the job, so far only JobProvision.
	Job Job `json:"job"`
	// Boot identifies this run of the kernel.
	Boot string `json:"boot"`
}

// PermitReply is the answer to a PermitRequest.
type PermitReply struct {
	// Allowed reports whether the job may run.
	Allowed bool `json:"allowed"`
	// Released reports whether an operator released the unit for this, and not only that nothing speaks against it.
	Released bool `json:"released,omitempty"`
	// Reason says why not.
	Reason string `json:"reason,omitempty"`
}

// CredentialsRequest is the body of POST /v1/credentials.
type CredentialsRequest struct {
	// Boot identifies this run of the kernel.
	Boot string `json:"boot"`
}

// ConfirmRequest is the body of POST /v1/credentials/confirm: the credentials of this generation are set on the unit.
type ConfirmRequest struct {
	Generation uint64 `json:"generation"`
}

// Document is the body of POST /v1/documents.
type Document struct {
	// Name is a file name without directories.
	Name string `json:"name"`
	// Type is a media type or, for what the original system called so, a title such as "QA Verification".
	Type string `json:"type"`
	// Boot identifies the run of the kernel that made it. A document of the same boot and name replaces the earlier one.
	Boot string `json:"boot"`
	// Body is the content (base64 in JSON).
	Body []byte `json:"body"`
}

// Validate returns an error unless d can be stored.
func (d Document) Validate() error {
	if err := CheckBoot(d.Boot); err != nil {
		return err
	}
	if d.Name == "" || len(d.Name) > MaxName || d.Name == "." || d.Name == ".." || strings.ContainsAny(d.Name, `/\`) || !printable(d.Name) {
		return fmt.Errorf("document name %q, want a plain file name of at most %d bytes", d.Name, MaxName)
	}
	if d.Type == "" || len(d.Type) > MaxName || !printable(d.Type) {
		return fmt.Errorf("document type %q, want 1 to %d printable characters", d.Type, MaxName)
	}
	if len(d.Body) > MaxDocument {
		return fmt.Errorf("document has %d bytes, want at most %d", len(d.Body), MaxDocument)
	}
	return nil
}

// Problem is the body of every answer that refuses a request.
type Problem struct {
	// Error is a sentence that says what is wrong.
	Error string `json:"error"`
	// Code is one of the Problem codes, for programs.
	Code string `json:"code"`
	// Time is the server's clock in UTC.
	Time time.Time `json:"time"`
}

// The codes of a Problem.
const (
	ProblemSyntax      = "syntax"       // the request is malformed
	ProblemTooLarge    = "too-large"    // the request is larger than its limit
	ProblemClock       = "clock"        // the timestamp is too far from the server's clock: use Problem.Time and try again
	ProblemSignature   = "signature"    // the signature does not hold or is missing
	ProblemNotEnrolled = "not-enrolled" // the key does not speak for this unit (any more)
	ProblemCompleted   = "completed"    // the unit is complete: an operator must release it first
	ProblemConfirmed   = "confirmed"    // the credentials are confirmed and never handed out again
	ProblemNoOperator  = "no-operator"  // the server has no operator key to encrypt credentials to
	ProblemGeneration  = "generation"   // the confirmed generation is not the newest one of this key
	ProblemRejected    = "rejected"     // an operator has rejected the key
	ProblemFingerprint = "fingerprint"  // the fingerprint is missing or not that of the key
	ProblemTaken       = "taken"        // a name or a port belongs to another unit
	ProblemLost        = "lost"         // the credentials were made after the backup from which the server was restored
	ProblemBusy        = "busy"         // too many requests: wait and try again
	ProblemLogin       = "login"        // an operator's login is missing or wrong
	ProblemNotFound    = "not-found"    // there is no such thing
	ProblemAudience    = "audience"     // the request is signed for another server
	ProblemOldScheme   = "old-scheme"   // the request is signed as version 0.1.0 did, and this unit was not enrolled in its time
	ProblemQuota       = "quota"        // the unit has used up what it may store: log records of this boot are not taken any more
	ProblemFull        = "full"         // the server's disk is nearly full: only states and the check's results are taken
	ProblemCertificate = "certificate"  // the certificate of an erase does not hold, or another one of its run is stored
	ProblemInternal    = "internal"     // the server has trouble of its own; its log says more
)

// CheckUnit returns an error unless s can be the name of a unit: 1 to MaxUnit printable ASCII characters without blanks at the ends.
func CheckUnit(s string) error {
	if s == "" || len(s) > MaxUnit {
		return fmt.Errorf("unit name has %d bytes, want 1 to %d", len(s), MaxUnit)
	}
	if !printable(s) || strings.TrimSpace(s) != s || s == "." || s == ".." {
		return fmt.Errorf("unit name %q, want printable ASCII without blanks at the ends", s)
	}
	return nil
}

// CheckBoot returns an error unless s can be a boot identifier: 1 to MaxBoot letters, digits and dashes.
func CheckBoot(s string) error {
	if s == "" || len(s) > MaxBoot {
		return fmt.Errorf("boot identifier has %d bytes, want 1 to %d", len(s), MaxBoot)
	}
	for _, c := range []byte(s) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-') {
			return fmt.Errorf("boot identifier %q, want letters, digits and dashes", s)
		}
	}
	return nil
}

// CleanMAC returns a hardware address of 6 bytes in lower case with colons. It takes colons and dashes, and the dashed form
// of BOOTIF with its leading hardware type (01-52-54-00-12-34-56).
func CleanMAC(s string) (string, error) {
	t := strings.ToLower(strings.ReplaceAll(s, "-", ":"))
	if len(t) == 20 && strings.HasPrefix(t, "01:") {
		t = t[3:]
	}
	bad := len(t) != 17
	for i := 0; !bad && i < len(t); i++ {
		if c := t[i]; i%3 == 2 {
			bad = c != ':'
		} else {
			bad = !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f')
		}
	}
	if bad {
		return "", fmt.Errorf("hardware address %q, want six bytes in hexadecimal with colons", s)
	}
	return t, nil
}

// Endpoint returns the base address of the server for a manifest's LogEndpoint, which is HOST:PORT or a URL. HOST:PORT means
// https. The result has no path and no slash at its end. An address that is not encrypted is an error, ErrPlain: tokens and
// credentials must not travel over it.
func Endpoint(s string) (string, error) {
	s = strings.TrimSpace(s)
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "https", s
	}
	rest = strings.TrimRight(rest, "/")
	if rest == "" || strings.ContainsAny(rest, "/?#@ ") {
		return "", fmt.Errorf("server address %q, want HOST:PORT or https://HOST:PORT", s)
	}
	host := rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.HasSuffix(rest, "]") {
		host = rest[:i]
	}
	if h, ok := strings.CutPrefix(host, "["); ok {
		if _, err := netip.ParseAddr(strings.TrimSuffix(h, "]")); err != nil {
			return "", fmt.Errorf("server address %q: %w", s, err)
		}
	}
	switch scheme {
	case "https":
		return "https://" + rest, nil
	case "http":
		return "", fmt.Errorf("server address %q: %w", s, ErrPlain)
	}
	return "", fmt.Errorf("server address %q, want HOST:PORT or https://HOST:PORT", s)
}

// ErrPlain says that a server's address is not encrypted.
var ErrPlain = errors.New("the address is not https")

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// FirmwareSerial is the keyword of the appliance table (SerNumField) whose value iPXE sends as a machine's serial number
// (ipxe.org/cfg/serial).
const FirmwareSerial = "system-serial-number"

// fingerprintAlphabet has no characters that are mistaken for another when they are read from a display (Crockford's base 32).
const fingerprintAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Fingerprint is what people compare of a public key, such as "7K2M-Q9XD-04TB": 60 bits of its SHA-256. The unit's panel and the
// server's page show the same.
func Fingerprint(publicKey []byte) string {
	sum := sha256.Sum256(append([]byte("gprov-key\n"), publicKey...))
	n := binary.BigEndian.Uint64(sum[:8])
	var b []byte
	for i := range 12 {
		if i > 0 && i%4 == 0 {
			b = append(b, '-')
		}
		b = append(b, fingerprintAlphabet[n>>59])
		n <<= 5
	}
	return string(b)
}

// SameFingerprint reports whether two fingerprints are the same as people write them: lower case, without dashes, and with the letters
// that are read for a digit.
func SameFingerprint(a, b string) bool {
	norm := func(s string) string {
		return strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(strings.TrimSpace(s)))
	}
	return norm(a) != "" && norm(a) == norm(b)
}
