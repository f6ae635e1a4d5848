package machine

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/unit/panel"
)

// card is a device on which discarding takes long.
type card struct {
	Device
	bound time.Duration
	calls *[]string
}

func (c *card) Size() int64  { return 8 << 30 }
func (c *card) Sync() error  { return nil }
func (c *card) Close() error { *c.calls = append(*c.calls, "close"); return nil }

func (c *card) Discard(_ context.Context, bound time.Duration, progress func(done int64)) block.Discarded {
	c.bound = bound
	*c.calls = append(*c.calls, "discard")
	progress(1 << 30)
	return block.Discarded{Bytes: 1 << 30, Why: "it would take an hour"}
}

// TestMakeExt4Discards: what was on a device is discarded by us, in bounded time, and not by mke2fs; a device that is slow, or cannot be
// opened, gets its filesystem all the same.
func TestMakeExt4Discards(t *testing.T) {
	for _, fails := range []error{nil, errors.New("busy")} {
		var calls []string
		c := &card{calls: &calls}
		m := &Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New()}
		m.Doors = Doors{
			Open: func(string, Access) (Device, error) { return c, fails },
			Run: func(_ context.Context, program string, args ...string) ([]byte, int, error) {
				calls = append(calls, filepath.Base(program))
				if all := strings.Join(args, " "); !strings.Contains(all, "nodiscard") {
					t.Errorf("%s %s discards itself", program, all)
				}
				return nil, 0, nil
			},
		}
		if err := m.MakeExt4(t.Context(), "/dev/mmcblk0p2", "PRIMARY", "11111111-2222-4333-8444-555555555555"); err != nil {
			t.Fatal(err)
		}
		want := []string{"discard", "close", "mke2fs"}
		if fails != nil {
			want = want[2:]
		}
		if !slices.Equal(calls, want) || fails == nil && c.bound != discardBound {
			t.Errorf("%v: %q, bound %s", fails, calls, c.bound)
		}
	}
}
