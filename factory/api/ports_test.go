package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"gprovision/factory/api"
	"gprovision/factory/store"
	"gprovision/model/fault"
	"gprovision/model/record"
)

// TestOperatorsAndPorts takes an operator through the work with ports, adapters, mainboards and keys.
func TestOperatorsAndPorts(t *testing.T) {
	const adapter = "52:54:00:00:00:aa"
	s := start(t, true)
	post := func(want int, path, body string) {
		t.Helper()
		if st, b := s.operator("POST", path, body); st != want {
			t.Errorf("%s: %d %s, want %d", path, st, b, want)
		} else if st != 200 {
			s.conforms("Problem", b)
		}
	}
	hello := func(unit string, seed byte, tok string, macs ...string) (string, error) {
		t.Helper()
		r := record.EnrolRequest{SerialField: record.FirmwareSerial, MACs: macs}
		if tok != "" {
			r.Token = s.token(tok, unit)
		}
		return s.client(unit, "b", seed).Hello(t.Context(), r)
	}
	if reason, err := hello("S1", 1, adapter, adapter, mac); reason != "" || err != nil {
		t.Fatal(reason, err)
	}
	if reason, err := hello("S2", 2, adapter, adapter); !strings.Contains(reason, "S1") || err != nil {
		t.Fatal(reason, err)
	}
	post(404, "/v1/ports/nonsense/release", "")
	post(400, "/v1/ports/nonsense/share", "")
	post(400, "/v1/ports/"+adapter+"/share", "{")
	post(200, "/v1/ports/"+adapter+"/share", `{"note":"station 3"}`)
	if reason, err := hello("S2", 2, adapter, adapter); reason != "" || err != nil {
		t.Error(reason, err)
	}
	var l api.PortList
	_, b := s.operator("GET", "/v1/ports", "")
	s.conforms("Ports", b)
	if err := json.Unmarshal(b, &l); err != nil || len(l.Ports) != 1 || l.Ports[0].MAC != mac || len(l.Shared) != 1 || l.Shared[0].Note != "station 3" || l.Shared[0].Operator != "admin" {
		t.Error(string(b), err)
	}
	post(200, "/v1/ports/"+adapter+"/unshare", "")
	post(404, "/v1/ports/"+adapter+"/unshare", "")
	post(200, "/v1/ports/"+mac+"/release", "")
	post(404, "/v1/ports/"+mac+"/release", "")

	// This key is rejected.
	if reason, err := hello("S3", 3, ""); reason == "" || err != nil {
		t.Fatal(reason, err)
	}
	var d api.Detail
	_, b = s.operator("GET", "/v1/units/S3", "")
	s.conforms("Detail", b)
	if err := json.Unmarshal(b, &d); err != nil || len(d.Enrolments) != 1 || d.Enrolments[0].Status != store.Pending {
		t.Fatal(string(b), err)
	}
	post(200, fmt.Sprintf("/v1/units/S3/enrolments/%d/reject", d.Enrolments[0].ID), "")
	post(404, fmt.Sprintf("/v1/units/S3/enrolments/%d/reject", d.Enrolments[0].ID), "")
	if _, err := hello("S3", 3, ""); fault.Of(err) != fault.EnrolRefused || !strings.Contains(err.Error(), record.ProblemRejected) {
		t.Error(err)
	}

	// A new mainboard has a name of its own. It leads to the unit, also in events.
	post(400, "/v1/units/S1/join", `{}`)
	post(404, "/v1/units/nobody/join", `{"serial":"BOARD-9"}`)
	post(409, "/v1/units/S1/join", `{"serial":"S2"}`)
	post(200, "/v1/units/S1/join", `{"serial":"BOARD-9","mac":"52-54-00-00-00-09"}`)
	board := s.client("BOARD-9", "b2", 1)
	if reason, err := board.Hello(t.Context(), record.EnrolRequest{}); reason != "" || err != nil {
		t.Fatal(reason, err)
	}
	if r, err := board.Send(t.Context(), []record.Event{stateEvent("b2", 1, record.JobRestore, record.Started)}); err != nil || r.Stored != 1 {
		t.Error(r, err)
	}
	if u, err := s.db.Unit(t.Context(), "S1"); err != nil || u.State.Job != record.JobRestore {
		t.Error(u, err)
	}
	if _, err := s.db.Unit(t.Context(), "BOARD-9"); err == nil {
		t.Error("the mainboard is a unit of its own")
	}
	_, b = s.operator("GET", "/v1/units/S1", "")
	s.conforms("Detail", b)
	if !strings.Contains(string(b), "BOARD-9") {
		t.Error(string(b))
	}
}
