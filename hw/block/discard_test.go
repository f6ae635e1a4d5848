package block

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDiscard: all of a disk is discarded in pieces that it takes quickly; a slow one, and one that cannot, are left soon.
func TestDiscard(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name   string
		size   int64
		speed  float64 // bytes each second
		after  int64   // where it becomes
		slower float64 // this slow; 0: nowhere
		err    error   // of the second piece
		all    bool
		why    string
		most   time.Duration // that it may take
		pieces int           // at least
	}{
		{name: "fast", size: 512 * gib, speed: 200 * gib, all: true, most: 3 * time.Second, pieces: 100},
		{name: "small", size: 3 << 20, speed: 1 << 20, all: true, most: 4 * time.Second, pieces: 1},
		{name: "a card that takes minutes", size: 8 * gib, speed: 17 << 20, why: "it would take", most: 2 * time.Second, pieces: 2},
		{name: "a card that takes hours", size: 8 * gib, speed: 1 << 20, why: "it would take", most: 5 * time.Second, pieces: 1},
		{name: "at the bound", size: 8 * gib, speed: 8 * gib / 19, all: true, most: 20 * time.Second, pieces: 50},
		{name: "slow in the middle", size: 64 * gib, speed: 32 * gib, after: 32 * gib, slower: 64 << 20, why: "it would take", most: 40 * time.Second, pieces: 10},
		{name: "not supported", size: gib, speed: gib, err: unix.EOPNOTSUPP, why: "cannot", most: time.Second, pieces: 1},
		{name: "refused", size: gib, speed: gib, err: unix.EIO, why: "input/output error", most: time.Second, pieces: 1},
	} {
		clock, next, pieces, told := time.Unix(0, 0), int64(0), 0, int64(0)
		drop := func(at, n int64) error {
			if pieces == 1 && c.err != nil {
				return c.err
			}
			if at != next || n < 1 || at+n > c.size {
				t.Fatalf("%s: %d bytes at %d, after %d of %d", c.name, n, at, next, c.size)
			}
			speed := c.speed
			if c.slower > 0 && at >= c.after {
				speed = c.slower
			}
			next, pieces = at+n, pieces+1
			clock = clock.Add(time.Duration(float64(n) / speed * float64(time.Second)))
			return nil
		}
		got := discard(t.Context(), c.size, 20*time.Second, func() time.Time { return clock }, drop, func(done int64) { told = done })
		if (got.Bytes == c.size) != c.all || (got.Why == "") != c.all || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %+v", c.name, got)
		}
		if took := clock.Sub(time.Unix(0, 0)); took > c.most || pieces < c.pieces || got.Bytes != next || told != next {
			t.Errorf("%s: %s in %d pieces, %d of %d bytes, %d told", c.name, took, pieces, got.Bytes, next, told)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if got := discard(ctx, gib, time.Minute, time.Now, func(int64, int64) error { return nil }, nil); got.Bytes != 0 || got.Why != "enough" {
		t.Errorf("ended: %+v", got)
	}
}
