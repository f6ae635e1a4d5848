package api_test

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gprovision/model/record"
)

// slow starts a request of a unit from an address and holds back most of its body. If there is an answer, its status
// goes to got.
func (s *station) slow(from string, key ed25519.PrivateKey, unit string, size int, got chan<- int) {
	s.t.Helper()
	d := &tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, Config: &tls.Config{RootCAs: s.pool}}
	conn, err := d.DialContext(s.t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	var head bytes.Buffer
	fmt.Fprintf(&head, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", size)
	for k, v := range record.SignRequest(key, s.aud, "POST", "/v1/events", unit, time.Now(), nil) {
		fmt.Fprintf(&head, "%s: %s\r\n", k, v)
	}
	head.WriteString("\r\n{")
	if _, err := conn.Write(head.Bytes()); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
			got <- resp.StatusCode
		}
	}()
}

// TestFlood: other machines start as many requests as they can and never end them. A unit of the same server is not
// affected. A single machine gets no more than its share. What is refused is not acknowledged.
func TestFlood(t *testing.T) {
	s := start(t, true)
	for i, unit := range []string{"S1", "EVIL"} {
		c := s.client(unit, "b", byte(i+1))
		if err := c.Enrol(t.Context(), record.EnrolRequest{Token: s.token(fmt.Sprintf("52:54:00:00:00:0%d", i), unit), MACs: []string{fmt.Sprintf("52:54:00:00:00:0%d", i)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	good := s.client("S1", "b", 1)
	if _, err := good.Time(t.Context()); err != nil {
		t.Fatal(err)
	}
	evil := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	got := make(chan int, 1000)
	for range 17 {
		s.slow("127.0.0.2", evil, "EVIL", record.MaxBody, got)
	}
	if status := <-got; status != http.StatusTooManyRequests {
		t.Errorf("one more than the share of an address: status %d", status)
	}
	for host := 3; host <= 6; host++ {
		for range 16 {
			s.slow(fmt.Sprintf("127.0.0.%d", host), evil, "EVIL", record.MaxBody, got)
		}
	}
	// There are 80 requests. All but 16 (for 64 MiB) have been answered.
	for range 64 {
		if status := <-got; status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
			t.Errorf("status %d", status)
		}
	}
	for i := range 3 {
		if _, err := good.Send(t.Context(), []record.Event{stateEvent("b", uint64(i+1), record.JobProvision, record.Started)}); err != nil {
			t.Errorf("the unit is blocked: %v", err)
		}
	}
	if status := <-got; status != http.StatusRequestTimeout {
		t.Errorf("who makes room gets status %d", status)
	}
	if list, _, err := s.db.Events(t.Context(), "EVIL", 0, 10); err != nil || len(list) != 0 {
		t.Error("something of the flood was stored", list, err)
	}
}

// TestFloodOfSmallRequests: requests that never end are counted, too, however small they are: no more than 50 are open.
func TestFloodOfSmallRequests(t *testing.T) {
	s := start(t, true)
	request := record.EnrolRequest{Token: s.token(mac, "EVIL"), MACs: []string{mac}}
	if err := s.client("EVIL", "b", 2).Enrol(t.Context(), request, nil); err != nil {
		t.Fatal(err)
	}
	evil := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	// 64 of them are 19 MiB. The HTTP server itself waits for what is left of a smaller body before it answers.
	const size = 300 << 10
	got := make(chan int, 100)
	for host := 2; host <= 5; host++ {
		for range 16 {
			s.slow(fmt.Sprintf("127.0.0.%d", host), evil, "EVIL", size, got)
		}
	}
	late := time.After(8 * time.Second) // before the time for a body of that size is over
	for i := range 4*16 - 50 {
		select {
		case status := <-got:
			if status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
				t.Errorf("status %d", status)
			}
		case <-late:
			t.Fatalf("only %d of 64 requests are answered", i)
		}
	}
}

// TestWithoutLength: a body of unknown length is refused unread.
func TestWithoutLength(t *testing.T) {
	s := start(t, true)
	if err := s.client("S1", "b", 1).Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, nil); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/v1/events", io.MultiReader(strings.NewReader(oneEvent)))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range record.SignRequest(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), s.aud, "POST", "/v1/events", "S1", time.Now(), []byte(oneEvent)) {
		r.Header.Set(k, v)
	}
	resp, err := s.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusLengthRequired {
		t.Error(resp.StatusCode)
	}
}

// TestOverQuota: a unit sends endless log records of one boot. In the end the answer is 507, and the unit's outcome
// still gets through.
func TestOverQuota(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 56 MiB")
	}
	s := start(t, true)
	c := s.client("S1", "b", 1)
	if err := c.Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, nil); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 50<<10)
	seq := uint64(0)
	var refused error
	for range 40 {
		events := make([]record.Event, 40)
		for i := range events {
			seq++
			events[i] = record.Event{Boot: "b", Seq: seq, Time: time.Now(), Kind: record.KindLog, Source: record.Observed, Attrs: map[string]any{"x": text}}
		}
		if _, refused = c.Send(t.Context(), events); refused != nil {
			break
		}
	}
	if refused == nil || !strings.Contains(refused.Error(), record.ProblemQuota) || !strings.Contains(refused.Error(), "507") {
		t.Fatal("no end:", refused)
	}
	if _, err := c.Send(t.Context(), []record.Event{stateEvent("b", seq+1, record.JobProvision, record.Succeeded)}); err != nil {
		t.Error("the outcome:", err)
	}
}

// TestStreamEnds: the stream of changes ends with the login that requested it.
func TestStreamEnds(t *testing.T) {
	s := start(t, true)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/changes", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("admin", password)
	resp, err := s.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := s.in.SetPassword(t.Context(), "admin", "another password"); err != nil {
		t.Fatal(err)
	}
	s.hub.Publish("secret unit")
	if rest, _ := io.ReadAll(lines); strings.Contains(string(rest), "secret") {
		t.Errorf("the stream tells more: %s", rest)
	}
}

// TestStoreFails: a store that cannot be read is the server's problem, not a wrong password.
func TestStoreFails(t *testing.T) {
	s := start(t, true)
	s.db.Close()
	if status, b := s.operator("GET", "/v1/units", ""); status != http.StatusInternalServerError {
		t.Error(status, string(b))
	}
}
