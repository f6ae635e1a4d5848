package guard

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestGroup: a service that panics is started again, after a growing delay, and the others do not notice. If it keeps
// panicking, all of them end.
func TestGroup(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	waits := func(ctx context.Context) error { <-ctx.Done(); return nil }

	t.Run("once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := NewGroup(quiet)
			ctx, cancel := context.WithCancel(t.Context())
			starts, others := 0, 0
			done := make(chan error, 1)
			go func() {
				done <- g.Run(ctx,
					Service{"other", func(ctx context.Context) error { others++; return waits(ctx) }},
					Service{"done", func(context.Context) error { return nil }},
					Service{"TFTP", func(ctx context.Context) error {
						if starts++; starts == 1 {
							panic("out of order")
						}
						return waits(ctx)
					}})
			}()
			synctest.Wait()
			if p := g.Problems(); len(p) != 1 || !strings.Contains(p[0], "TFTP") || !strings.Contains(p[0], "is down") {
				t.Error("down:", p)
			}
			time.Sleep(firstDelay) // virtual time
			synctest.Wait()
			if starts != 2 || others != 1 {
				t.Errorf("%d starts, the other one %d", starts, others)
			}
			if p := g.Problems(); len(p) != 1 || !strings.Contains(p[0], "was started again") {
				t.Error("up again:", p)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})

	t.Run("again and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			var starts []time.Duration
			ended := false
			err := NewGroup(quiet).Run(t.Context(),
				Service{"other", func(ctx context.Context) error { <-ctx.Done(); ended = true; return nil }},
				Service{"DHCP", func(context.Context) error { starts = append(starts, time.Since(began)); panic("always") }})
			if !errors.Is(err, ErrService) || !strings.Contains(err.Error(), "DHCP") || !ended {
				t.Errorf("%v, the other one ended: %t", err, ended)
			}
			want := []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second}
			if len(starts) != len(want) {
				t.Fatalf("starts at %v", starts)
			}
			for i := range want {
				if starts[i] != want[i] {
					t.Errorf("start %d at %v, want %v", i, starts[i], want[i])
				}
			}
		})
	})

	t.Run("seldom", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			starts := 0
			err := NewGroup(quiet).Run(ctx, Service{"HTTP", func(ctx context.Context) error {
				if starts++; starts == 3*maxPanics {
					cancel()
					return nil
				}
				time.Sleep(window)
				panic("each minute")
			}})
			if err != nil || starts != 3*maxPanics {
				t.Error(err, starts)
			}
		})
	})

	t.Run("error", func(t *testing.T) {
		err := NewGroup(quiet).Run(t.Context(), Service{"other", waits}, Service{"bad", func(context.Context) error { return io.ErrUnexpectedEOF }})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
}
