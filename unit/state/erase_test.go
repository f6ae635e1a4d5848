package state

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"gprovision/model/erasure"
)

// TestErase: the state of an erase is read as it was written, and what cannot be right is damaged.
func TestErase(t *testing.T) {
	v := Open(t.TempDir())
	want := Erase{Version: Version, ID: "0123456789abcdef", By: "a person",
		Started: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), Whole: true,
		Outcome: erasure.Failed, Resolved: true, ResolvedBy: "A1B2", ResolvedAt: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	if err := WriteErase(v, want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadErase(v); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for text, want := range map[string]error{
		`{"version":1,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z"}`:                                                     nil,
		`{"version":1,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z","outcome":"weaker","resolved":true}`:                  nil,
		`{"version":1,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z","outcome":"failed","resolvedBy":"A1B2"}`:              ErrDamaged,
		`{"version":1,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z","resolved":true}`:                                     ErrDamaged,
		`{"version":1,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z","outcome":"done"}`:                                    ErrDamaged,
		`{"version":1,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z","standIn":"a-01"}`:                                    nil,
		`{"version":1,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z","outcome":"weaker","resolved":true,"standIn":"a-01"}`: ErrDamaged,
		`{"version":1,"id":"x","started":"2026-11-22T10:00:00Z"}`:                                                                    ErrDamaged,
		`{"version":1,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z","by":"\u0007"}`:                                       ErrDamaged,
		`{"version":2,"id":"0123456789abcdef","started":"2026-11-22T10:00:00Z","outcome":"in a way of the year 2030"}`:               ErrNewer,
	} {
		if _, err := parse[Erase](EraseFile, []byte(text)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}

// TestEraseRequest: a request for an erase names no image, and only one for an erase reaches the recovery volume.
func TestEraseRequest(t *testing.T) {
	v := Open(t.TempDir())
	r, err := NewRequest(KindErase, "", "a person", time.Now())
	r.Whole = true
	if err := errors.Join(err, v.WriteRequest(r)); err != nil {
		t.Fatal(err)
	}
	if got, err := v.ReadRequest(); err != nil || !reflect.DeepEqual(got, r) || got.Image != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{`"kind":"erase","image":"latest"`, `"kind":"restore","whole":true`} {
		_, err := ParseRequest([]byte(`{"version":1,"id":"0123456789abcdef","time":"2026-11-22T10:00:00Z",` + text + `}`))
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
