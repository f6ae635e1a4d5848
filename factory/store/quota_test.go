package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/model/record"
)

// room opens a store with one unit, on a disk with free bytes left.
func room(t *testing.T, free int64) *DB {
	t.Helper()
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if want := (bounds{boot: usage{64 << 20, 100_000}, unit: usage{256 << 20, 400_000}, documents: 128 << 20}); db.bounds != want {
		t.Errorf("the bounds are %+v, want %+v", db.bounds, want)
	}
	// These are a hundredth of the real limits, to spare the disk of this machine.
	db.bounds = bounds{boot: usage{640 << 10, 1000}, unit: usage{2560 << 10, 4000}, documents: 1280 << 10}
	db.free = func() (int64, error) { return free, nil }
	if _, err := db.w.ExecContext(t.Context(), `INSERT INTO units (id, first_seen, last_seen) VALUES ('S1', 1, 1)`); err != nil {
		t.Fatal(err)
	}
	return db
}

// batch returns n events of a boot, numbered from seq.
func batch(boot string, seq, n int, kind record.Kind, size int) []record.Event {
	out := make([]record.Event, n)
	for i := range out {
		out[i] = record.Event{Boot: boot, Seq: uint64(seq + i), Time: time.Unix(1, 0), Kind: kind, Source: record.Observed,
			Attrs: map[string]any{"job": "provision", "state": "step", "x": strings.Repeat("x", size)}}
	}
	return out
}

func (d *DB) counted(t *testing.T, boot string) (bytes, records, real int64) {
	t.Helper()
	err := d.r.QueryRowContext(t.Context(), `SELECT coalesce((SELECT bytes FROM usage WHERE unit = 'S1' AND boot = ?1), 0), coalesce((SELECT records FROM usage WHERE unit = 'S1' AND boot = ?1), 0),
		(SELECT count(*) FROM events WHERE unit = 'S1' AND boot = ?1)`, boot).Scan(&bytes, &records, &real)
	if err != nil {
		t.Fatal(err)
	}
	return bytes, records, real
}

// TestQuotaOfBoot: one boot of a unit stores until it reaches its limit. Log records are refused first, states
// somewhat later, and what was refused is not there.
func TestQuotaOfBoot(t *testing.T) {
	db := room(t, math.MaxInt64)
	fill := func(kind record.Kind, seq, size int) (stored int) {
		t.Helper()
		for {
			_, err := db.AddEvents(t.Context(), "S1", batch("b", seq+stored, 5, kind, size))
			if errors.Is(err, ErrQuota) {
				return stored
			}
			if err != nil {
				t.Fatal(err)
			}
			if stored += 5; int64(stored) > db.bounds.boot.records {
				t.Fatal("no end")
			}
		}
	}
	const size = 60 << 10
	logs := fill(record.KindLog, 1, size)
	bytes, records, real := db.counted(t, "b")
	if records != int64(logs) || real != records || bytes > db.bounds.boot.bytes/8*7 || bytes < int64(logs)*size {
		t.Errorf("%d log records were stored, counted are %d, there are %d, with %d bytes", logs, records, real, bytes)
	}
	// The same events again cost nothing.
	if _, err := db.AddEvents(t.Context(), "S1", batch("b", 1, 5, record.KindLog, size)); err != nil {
		t.Error(err)
	}
	if states := fill(record.KindState, 1e7, 100); states < 50 {
		t.Errorf("only %d states", states)
	}
	if bytes, records, _ := db.counted(t, "b"); bytes > db.bounds.boot.bytes || records > db.bounds.boot.records {
		t.Errorf("%d bytes, %d records", bytes, records)
	}
	// Documents count too.
	if err := db.AddDocument(t.Context(), "S1", record.Document{Name: "d", Type: "t", Boot: "b", Body: make([]byte, 80<<10)}); !errors.Is(err, ErrQuota) {
		t.Error("a document beyond the quota:", err)
	}
	for i := range 9 {
		err := db.AddDocument(t.Context(), "S1", record.Document{Name: fmt.Sprint(i), Type: "t", Boot: "c", Body: make([]byte, 80<<10)})
		if want := i == 8; errors.Is(err, ErrQuota) != want || err != nil && !want {
			t.Errorf("document %d: %v", i, err)
		}
	}
	if _, err := db.AddEvents(t.Context(), "S1", batch("c", 1, 1, record.KindLog, 1)); !errors.Is(err, ErrQuota) {
		t.Error("a log record beside as many documents as may be:", err)
	}
	// Another boot has room of its own.
	if _, err := db.AddEvents(t.Context(), "S1", batch("d", 1, 5, record.KindLog, size)); err != nil {
		t.Error(err)
	}
}

// TestQuotaOfRecords counts small records.
func TestQuotaOfRecords(t *testing.T) {
	db := room(t, math.MaxInt64)
	if _, err := db.AddEvents(t.Context(), "S1", batch("b", 1, 1, record.KindLog, 1)); err != nil {
		t.Fatal(err)
	}
	for kind, most := range map[record.Kind]int64{record.KindLog: db.bounds.boot.records / 8 * 7, record.KindState: db.bounds.boot.records} {
		if _, err := db.w.ExecContext(t.Context(), `UPDATE usage SET records = ?`, most-1); err != nil {
			t.Fatal(err)
		}
		if _, err := db.AddEvents(t.Context(), "S1", batch("b", 10, 2, kind, 1)); !errors.Is(err, ErrQuota) {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := db.AddEvents(t.Context(), "S1", batch("b", int(most), 1, kind, 1)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestQuotaOfUnit: a unit starts boot after boot. What it may store in total is limited, and the newest boots keep
// theirs.
func TestQuotaOfUnit(t *testing.T) {
	db := room(t, math.MaxInt64)
	const boots = 12
	for i := range boots {
		boot := fmt.Sprint("b", i)
		for k := range 2 {
			if _, err := db.AddEvents(t.Context(), "S1", batch(boot, 1+k*5, 5, record.KindLog, 52<<10)); err != nil {
				t.Fatal(boot, err)
			}
		}
		if _, err := db.AddEvents(t.Context(), "S1", batch(boot, 2000, 1, record.KindState, 10)); err != nil {
			t.Fatal(boot, err)
		}
		var bytes int64
		if err := db.r.QueryRowContext(t.Context(), `SELECT sum(octet_length(attrs)) FROM events`).Scan(&bytes); err != nil || bytes > db.bounds.unit.bytes {
			t.Fatalf("%d bytes after %s: %v", bytes, boot, err)
		}
	}
	for i, want := range map[int]int64{0: 1, boots - 1: 11} { // of the oldest boot, the state stayed
		if _, records, real := db.counted(t, fmt.Sprint("b", i)); real != want || records != want {
			t.Errorf("boot %d has %d records, counted %d, want %d", i, real, records, want)
		}
	}
	for i := range 100 { // documents, too
		if err := db.AddDocument(t.Context(), "S1", record.Document{Name: "d", Type: "t", Boot: fmt.Sprint("x", i), Body: make([]byte, 80<<10)}); err != nil {
			t.Fatal(err)
		}
		if i == 20 {
			break
		}
	}
	list, err := db.Documents(t.Context(), "S1")
	if err != nil || len(list) != int(db.bounds.documents/(80<<10)) || list[0].Boot != "x20" {
		t.Errorf("%d documents stay: %v", len(list), err)
	}
}

// TestDiskLow: once the disk is nearly full, only the state of units is accepted, cut to a small size. In the end
// nothing is.
func TestDiskLow(t *testing.T) {
	qa := record.Event{Boot: "b", Seq: 3, Kind: record.KindQA, Source: record.Observed, Attrs: map[string]any{"name": "memory", "ok": true}}
	large := qa
	large.Attrs = map[string]any{"found": strings.Repeat("x", maxLowEvent)}
	for name, c := range map[string]struct {
		free   int64
		events []record.Event
		want   error
	}{
		"enough":         {diskLow, batch("b", 1, 2, record.KindLog, 100), nil},
		"log":            {diskLow - 1, batch("b", 1, 1, record.KindLog, 1), ErrDisk},
		"log and states": {diskLow - 1, append(batch("b", 1, 2, record.KindState, 1), batch("b", 3, 1, record.KindLog, 1)...), ErrDisk},
		"fact":           {diskLow - 1, batch("b", 1, 1, record.KindFact, 1), ErrDisk},
		"state":          {diskLow - 1, batch("b", 1, 3, record.KindState, 60<<10), nil},
		"check":          {diskNone, []record.Event{qa}, nil},
		"large check":    {diskLow - 1, []record.Event{large}, ErrDisk},
		"the end":        {diskNone - 1, batch("b", 1, 1, record.KindState, 1), ErrDisk},
	} {
		db := room(t, c.free)
		n, err := db.AddEvents(t.Context(), "S1", c.events)
		if !errors.Is(err, c.want) || err == nil && n != len(c.events) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		bytes, _, real := db.counted(t, "b")
		if c.want != nil && real != 0 {
			t.Errorf("%s: %d records were stored", name, real)
		}
		if name == "state" && bytes > 3*1024 {
			t.Errorf("%s: three states take %d bytes", name, bytes)
		}
		if err := db.AddDocument(t.Context(), "S1", record.Document{Name: "d", Type: "t", Boot: "b"}); errors.Is(err, ErrDisk) != (c.free < diskLow) {
			t.Errorf("%s: document: %v", name, err)
		}
	}
}

// TestAnswers requests what a unit has filled as far as it could. Answers stay small, and what is left out can be
// requested.
func TestAnswers(t *testing.T) {
	db := room(t, math.MaxInt64)
	db.bounds = defaultBounds()
	for i := range 20 {
		facts := batch("b", 1+i*50, 50, record.KindFact, 0)
		for k := range facts {
			facts[k].Attrs = map[string]any{"name": fmt.Sprint("f", i*50+k), "value": strings.Repeat("x", 56<<10)}
			if k%2 == 0 {
				facts[k].Attrs["value"] = strings.Repeat("y", maxFact-2)
			}
		}
		if _, err := db.AddEvents(t.Context(), "S1", facts); err != nil {
			t.Fatal(err)
		}
	}
	facts, err := db.Facts(t.Context(), "S1")
	if err != nil || len(facts) != 1000 {
		t.Fatal(len(facts), err)
	}
	size := 0
	for _, f := range facts {
		size += len(f.Value)
		if f.Name == "f1" && string(f.Value) != fmt.Sprintf(`"[a value of %d bytes]"`, 56<<10+2) {
			t.Errorf("%s", f.Value)
		}
	}
	if size > maxFacts+1000*40 {
		t.Errorf("the values of the facts have %d bytes", size)
	}
	seen, before := 0, int64(0)
	for {
		events, more, err := db.Events(t.Context(), "S1", before, 1000)
		if err != nil || len(events) == 0 {
			t.Fatal(len(events), err)
		}
		size := 0
		for _, e := range events {
			b, _ := json.Marshal(e)
			size += len(b)
		}
		if size > maxEvents+(64<<10) {
			t.Errorf("%d events have %d bytes", len(events), size)
		}
		seen, before = seen+len(events), events[len(events)-1].ID
		if !more {
			break
		}
	}
	if seen != 1000 {
		t.Errorf("%d of 1000 events", seen)
	}
	for i := range 30 {
		if _, err := db.w.ExecContext(t.Context(), `INSERT INTO units (id, first_seen, last_seen) VALUES (?, 1, 1)`, fmt.Sprint("U", i)); err != nil {
			t.Fatal(err)
		}
	}
	units, total, err := db.Units(t.Context(), 20, 10)
	if err != nil || total != 31 || len(units) != 10 {
		t.Errorf("%d of %d units, %v", len(units), total, err)
	}
}
