package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gprovision/factory/api"
	"gprovision/factory/store"
	"gprovision/model/erasure"
	"gprovision/model/erasure/erasuretest"
	"gprovision/model/fault"
	"gprovision/model/ledger"
	"gprovision/model/record"
	"gprovision/unit/report"
)

// signed returns a certificate as a unit sends it. The key is that of station.client with the same number.
func signed(t *testing.T, c erasure.Certificate, seed byte) record.EraseSubmission {
	t.Helper()
	file, sig, err := c.Sign(erasuretest.Key(seed))
	if err != nil {
		t.Fatal(err)
	}
	return record.EraseSubmission{Certificate: file, Signature: sig}
}

// verifiers reads the server's keys as a stranger gets them.
func (s *station) verifiers() erasure.Keys {
	s.t.Helper()
	resp, err := s.http.Get(s.url + "/v1/erases/keys")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	var keys record.NoteKeys
	if _, err := b.ReadFrom(resp.Body); err != nil || json.Unmarshal(b.Bytes(), &keys) != nil || len(keys.Units) != 1 {
		s.t.Fatal(resp.Status, b.String(), err)
	}
	s.conforms("NoteKeys", b.Bytes())
	read := func(lines []string) (out []note.Verifier) {
		for _, line := range lines {
			v, err := note.NewVerifier(line)
			if err != nil {
				s.t.Fatal(err)
			}
			out = append(out, v)
		}
		return out
	}
	return erasure.Keys{Servers: read(keys.Units), Logs: read(keys.Log)}
}

// whole returns what belongs together.
func whole(q record.EraseSubmission, r record.EraseReply) erasure.Files {
	return erasure.Files{Certificate: q.Certificate, Signature: q.Signature, Voucher: r.Voucher, Proof: r.Proof}
}

// checkpoint returns the log's present checkpoint, or the growth from an old size.
func (s *station) checkpoint(query string) []byte {
	s.t.Helper()
	status, b := s.operator("GET", "/v1/erases/checkpoint"+query, "")
	if status != 200 {
		s.t.Fatal(status, string(b))
	}
	return b
}

// enrolled returns a client whose key speaks for a unit.
func (s *station) enrolled(unit string, seed byte, mac string) *report.Client {
	s.t.Helper()
	c := s.client(unit, "b", seed)
	if err := c.Enrol(s.t.Context(), record.EnrolRequest{Token: s.token(mac, unit), MACs: []string{mac}}, nil); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// TestErase takes a unit to the end of its life: it is provisioned, tells its drives, is erased, certifies that, and its key is refused
// from then on, though it gets the same answer again. Then it is provisioned anew.
func TestErase(t *testing.T) {
	s := start(t, true)
	ctx := t.Context()
	c := s.enrolled("S1", 1, mac)
	if err := c.Permit(ctx, record.JobProvision); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Credentials(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Send(ctx, []record.Event{stateEvent("b", 1, record.JobProvision, record.Succeeded)}); err != nil {
		t.Fatal(err)
	}

	cert := erasuretest.Proved("S1", 1)
	state, err := json.Marshal(cert.Drives[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{string(state), string(state), `{"other":1}`} {
		if err := c.DriveBefore(ctx, record.EraseBefore{Run: cert.Run, Name: "nvme0n1", State: []byte(b)}); err != nil {
			t.Fatal(err)
		}
	}
	q := signed(t, cert, 1)
	reply, err := c.Erased(ctx, q)
	if err != nil || !reply.Ended || reply.Unit != "S1" || reply.Run != cert.Run {
		t.Fatal(reply, err)
	}
	files := whole(q, reply)
	files.Checkpoint = s.checkpoint("")
	keys := s.verifiers()
	checked, err := erasure.Verify(files, keys)
	if err == nil {
		err = checked.Holds(true, true, 0)
	}
	if err != nil || checked.Index != 0 {
		t.Error(checked, err)
	}

	// The key is refused, for everything but the same question.
	for what, err := range map[string]error{
		"permit": c.Permit(ctx, record.JobProvision), "confirm": c.Confirm(ctx, 1),
		"drive before": c.DriveBefore(ctx, record.EraseBefore{Run: cert.Run, Name: "sda", State: []byte(`{}`)}),
	} {
		if fault.Of(err) != fault.ServerRefused {
			t.Errorf("%s with a revoked key: %v", what, err)
		}
	}
	if again, err := c.Erased(ctx, q); err != nil || !reflect.DeepEqual(again, reply) {
		t.Errorf("the same again: %v", err)
	}
	if _, err := c.Erased(ctx, signed(t, erasuretest.Proved("S1", 2), 1)); fault.Of(err) != fault.ServerRefused {
		t.Errorf("another run, with a revoked key: %v", err)
	}

	// Records stay.
	_, b := s.operator("GET", "/v1/units/S1", "")
	s.conforms("Detail", b)
	var d api.Detail
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Erases) != 1 || d.Erases[0].Ended.IsZero() || d.Erases[0].Outcome != "proved" || len(d.Before) != 2 || len(d.Secrets) != 1 ||
		!d.Secrets[0].Spent || d.Unit.Enrolled || !d.Unit.Provisioned.IsZero() || d.Enrolments[0].Status != store.Ended {
		t.Errorf("%s", b)
	}
	status, b := s.operator("GET", fmt.Sprintf("/v1/units/S1/erases/%d", d.Erases[0].ID), "")
	var f api.EraseFiles
	if err := json.Unmarshal(b, &f); err != nil || status != 200 {
		t.Error(status, err)
	}
	if !bytes.Equal(f.Certificate, q.Certificate) || !bytes.Equal(f.Proof, reply.Proof) {
		t.Error("other files than were stored")
	}
	s.conforms("EraseFiles", b)

	// Its life begins anew: with a new key by its token, with the old one only by a person.
	var why string
	err = c.Enrol(ctx, record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, func(reason string) {
		why = reason
		s.reject("S1")
	})
	if fault.Of(err) != fault.EnrolRefused || !strings.Contains(why, "revoked when the unit was erased") {
		t.Errorf("the revoked key enrols: %v, %q", err, why)
	}
	again := s.enrolled("S1", 2, mac)
	if released, err := again.Released(ctx, record.JobProvision); err != nil || released {
		t.Error(released, err)
	}
	if cr, err := again.Credentials(ctx); err != nil || cr.Generation != 2 {
		t.Error(cr.Generation, err)
	}
	if second, err := c.Erased(ctx, q); err != nil || !bytes.Equal(second.Proof, reply.Proof) {
		t.Errorf("the same again, in another life: %v", err)
	}
	if err := again.Confirm(ctx, 2); err != nil {
		t.Errorf("the answer to the old key ended the new life: %v", err)
	}

	// The log only grows.
	if _, err := again.Erased(ctx, signed(t, erasuretest.Failed("S1", 3), 2)); err != nil {
		t.Fatal(err)
	}
	if err := again.Confirm(ctx, 2); err != nil {
		t.Errorf("an erase that failed ended the life: %v", err)
	}
	files.Checkpoint = s.checkpoint("?old=1")
	if checked, err = erasure.Verify(files, keys); err != nil || !checked.Compared {
		t.Error(checked.NotCompared, err)
	}
	if status, _ := s.operator("GET", "/v1/erases/checkpoint?old=3", ""); status != 404 {
		t.Error("growth from a size that it does not have:", status)
	}
	if status, _ := s.operator("GET", "/v1/erases/checkpoint?old=-1", ""); status != 400 {
		t.Error("growth from no size:", status)
	}
}

// reject rejects the keys of a unit that wait.
func (s *station) reject(unit string) {
	s.t.Helper()
	list, err := s.db.Enrolments(s.t.Context(), unit)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range list {
		if e.Status == store.Pending {
			if err := s.db.Reject(s.t.Context(), unit, e.ID, "admin"); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// TestEraseAccepted: a weaker outcome ends the life only when somebody accepts it, and that may come later.
func TestEraseAccepted(t *testing.T) {
	s := start(t, true)
	c := s.enrolled("S1", 1, mac)
	q := signed(t, erasuretest.Weaker("S1", 1), 1)
	first, err := c.Erased(t.Context(), q)
	if err != nil || first.Ended {
		t.Fatal(first, err)
	}
	if err := c.Permit(t.Context(), record.JobProvision); err != nil {
		t.Error(err)
	}
	q.Accepted = true
	second, err := c.Erased(t.Context(), q)
	if err != nil || !second.Ended || !bytes.Equal(first.Proof, second.Proof) {
		t.Error(second, err)
	}
	if err := c.Permit(t.Context(), record.JobProvision); fault.Of(err) != fault.ServerRefused {
		t.Error(err)
	}
	failed := s.enrolled("S2", 2, "52:54:00:00:00:02")
	q = signed(t, erasuretest.Failed("S2", 1), 2)
	q.Accepted = true
	if r, err := failed.Erased(t.Context(), q); err != nil || r.Ended {
		t.Error("nobody can accept a failure:", r, err)
	}
}

// TestEraseForged: certificates that are not the unit's, or not what they were.
func TestEraseForged(t *testing.T) {
	s := start(t, true)
	c := s.enrolled("S1", 1, mac)
	s.enrolled("S2", 2, "52:54:00:00:00:02")
	good := signed(t, erasuretest.Proved("S1", 1), 1)
	changed := good
	changed.Certificate = bytes.Replace(good.Certificate, []byte("SERIAL-1"), []byte("SERIAL-2"), 1)
	lie := erasuretest.Failed("S1", 5)
	liar := signed(t, lie, 1)
	liar.Certificate = bytes.ReplaceAll(liar.Certificate, []byte(`"outcome": "failed"`), []byte(`"outcome": "proved"`))
	mixed := good
	mixed.Signature = signed(t, erasuretest.Proved("S1", 2), 1).Signature
	for what, q := range map[string]record.EraseSubmission{
		"nothing":                        {},
		"changed":                        changed,
		"a failure that says proved":     liar,
		"the signature of another run":   mixed,
		"signed by another unit's key":   signed(t, erasuretest.Proved("S1", 1), 2),
		"signed by nobody's key":         signed(t, erasuretest.Proved("S1", 1), 9),
		"the certificate of another one": signed(t, erasuretest.Proved("S2", 1), 2),
	} {
		_, err := c.Erased(t.Context(), q)
		var p *report.Refusal
		if !errors.As(err, &p) || p.Problem.Code != record.ProblemCertificate || p.Status != http.StatusConflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Its own key, and the name of another unit, which does not have that key.
	_, err := c.Erased(t.Context(), signed(t, erasuretest.Proved("S2", 1), 1))
	var p *report.Refusal
	if !errors.As(err, &p) || p.Problem.Code != record.ProblemNotEnrolled {
		t.Errorf("another unit's name: %v", err)
	}
	if _, err := s.client("S3", "b", 3).Erased(t.Context(), signed(t, erasuretest.Proved("S3", 1), 3)); fault.Of(err) != fault.ServerRefused {
		t.Errorf("a unit that is not enrolled: %v", err)
	}
	if _, err := s.client("S1", "b", 2).Erased(t.Context(), good); fault.Of(err) != fault.ServerRefused {
		t.Errorf("a request that another key has signed: %v", err)
	}
	if err := c.Permit(t.Context(), record.JobProvision); err != nil {
		t.Errorf("a certificate that was refused ended the life: %v", err)
	}

	if _, err := c.Erased(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	other := erasuretest.Proved("S1", 1)
	other.Platform = "other"
	_, err = c.Erased(t.Context(), signed(t, other, 1))
	if !errors.As(err, &p) || p.Problem.Code != record.ProblemCertificate || !strings.Contains(err.Error(), "another certificate of") {
		t.Errorf("the same run with another content: %v", err)
	}
	for what, send := range map[string]func() (int, record.Problem){
		"too large": func() (int, record.Problem) { return s.signedPost("/v1/erases", strings.Repeat(" ", api.MaxErase+1)) },
		"no JSON":   func() (int, record.Problem) { return s.signedPost("/v1/erases", "{") },
		"no stamp":  func() (int, record.Problem) { return s.raw("/v1/erases", "{}", nil) },
		"no drive":  func() (int, record.Problem) { return s.signedPost("/v1/erases/before", `{"run":"x"}`) },
	} {
		if status, p := send(); status < 400 || status >= 500 || p.Error == "" {
			t.Errorf("%s: %d %v", what, status, p)
		}
	}
	if status, _ := s.operator("POST", "/v1/erases/submit", "{"); status != 400 {
		t.Error(status)
	}
	if _, b := s.operator("GET", "/v1/erases/drives", ""); strings.Contains(string(b), "SERIAL") || strings.Contains(string(b), "S1") ||
		!strings.Contains(string(b), `"method":"nvme-format-crypto","refused":1`) {
		t.Errorf("%s", b)
	}
}

// signedPost sends a request that the unit S1 signs.
func (s *station) signedPost(path, body string) (int, record.Problem) {
	s.t.Helper()
	headers := record.SignRequest(erasuretest.Key(1), s.aud, "POST", path, "S1", time.Now(), []byte(body))
	return s.raw(path, body, headers)
}

// TestEraseBrought: an operator brings a certificate that never came over the network, also of a key that was replaced since. It vouches
// for it and leaves the new life alone.
func TestEraseBrought(t *testing.T) {
	s := start(t, true)
	s.enrolled("S1", 1, mac)
	submit := func(q record.EraseSubmission) (int, record.EraseReply, []byte) {
		t.Helper()
		body, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		status, b := s.operator("POST", "/v1/erases/submit", string(body))
		var r record.EraseReply
		if status == 200 {
			s.conforms("EraseReply", b)
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		return status, r, b
	}
	second := s.enrolled("S1", 2, mac) // the first had got no credentials
	old := signed(t, erasuretest.Proved("S1", 1), 1)
	if _, err := s.client("S1", "b", 1).Erased(t.Context(), old); fault.Of(err) != fault.ServerRefused {
		t.Errorf("from a key that was replaced: %v", err)
	}
	status, r, b := submit(old)
	if status != 200 || r.Ended {
		t.Fatal(status, string(b))
	}
	if err := second.Permit(t.Context(), record.JobProvision); err != nil {
		t.Errorf("the certificate of the replaced key ended the life of the other: %v", err)
	}
	if checked, err := erasure.Verify(whole(old, r), s.verifiers()); err != nil || checked.Holds(true, false, 0) != nil {
		t.Error(checked, err)
	}
	if status, _, b := submit(signed(t, erasuretest.Proved("S1", 2), 9)); status != 403 {
		t.Error("a key that nobody knows:", status, string(b))
	}
	weaker := signed(t, erasuretest.Weaker("S1", 3), 2)
	weaker.Accepted = true
	if status, r, b := submit(weaker); status != 200 || !r.Ended {
		t.Error("an operator accepts:", status, string(b))
	}
	if status, _, b := submit(signed(t, erasuretest.Proved("S1", 4), 2)); status != 403 {
		t.Error("a key whose life is over makes another one:", status, string(b))
	}
}

// TestLogBehind: a server that is what it was some time ago begins another log, so that nobody can see two logs of one name. What the first
// one has stays good.
func TestLogBehind(t *testing.T) {
	s := start(t, true)
	s.enrolled("S1", 1, mac)
	c := s.enrolled("S2", 2, "52:54:00:00:00:02")
	reply, err := c.Erased(t.Context(), signed(t, erasuretest.Failed("S2", 1), 2))
	if err != nil {
		t.Fatal(err)
	}
	before := s.verifiers()
	// What the server has given since, and has forgotten: its log goes another way.
	keys, err := s.db.NoteKeys(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var later *ledger.Log
	for _, k := range keys {
		if k.Kind == store.LogKey {
			signer, err := note.NewSigner(k.Private.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			later = ledger.New(new(ledger.Memory), signer)
		}
	}
	lost := signed(t, erasuretest.Failed("S1", 1), 1)
	for range 2 {
		if _, err := later.Append(erasure.Record(lost.Certificate)); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint, err := later.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	p, err := later.Prove(1, checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	// A proof of a log that is none of ours changes nothing, and one that holds neither.
	same := signed(t, erasuretest.Failed("S2", 1), 2)
	same.Proof = reply.Proof
	if _, err := c.Erased(t.Context(), same); err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(p.Marshal()), keys[0].Name, "else.example/log", 1)
	same.Proof = []byte(other)
	if _, err := c.Erased(t.Context(), same); err != nil || len(s.verifiers().Logs) != 1 {
		t.Fatal("a stranger's proof closed the log:", err)
	}
	lost.Proof = p.Marshal()
	again, err := s.client("S1", "b", 1).Erased(t.Context(), lost)
	if err != nil {
		t.Fatal(err)
	}
	after := s.verifiers()
	if len(after.Logs) != 2 || after.Logs[0].Name() == before.Logs[0].Name() || after.Servers[0].Name() != before.Servers[0].Name() {
		t.Fatalf("the server goes on with the same log: %v", after)
	}
	checked, err := erasure.Verify(whole(lost, again), after)
	if err != nil || checked.Logged == nil || checked.Logged.Origin != after.Logs[0].Name() || checked.Index != 0 {
		t.Error(checked.NotLogged, err)
	}
	if checked, err = erasure.Verify(whole(signed(t, erasuretest.Failed("S2", 1), 2), reply), after); err != nil || checked.Logged == nil {
		t.Error("what the first log has is not good any more:", checked.NotLogged, err)
	}
	// Somebody else's key for the log: the certificate is in no log that is known.
	if checked, err = erasure.Verify(whole(lost, again), before); err != nil || checked.Logged != nil {
		t.Error("the wrong log key:", checked.Logged, err)
	}
}
