package step

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestRunStopsAtFirstFailure(t *testing.T) {
	bad := errors.New("bad")
	var ran, seen []string
	mk := func(name string, err error) Step {
		return Step{Name: name, Run: func(context.Context) error { ran = append(ran, name); return err }}
	}
	err := Run(t.Context(), []Step{mk("a", nil), mk("b", bad), mk("c", nil)}, func(e Event) {
		seen = append(seen, e.Step.Name+" "+string(e.State))
	})
	var se *Error
	if !errors.As(err, &se) || se.Step != "b" || !errors.Is(err, bad) {
		t.Fatalf("got %v, want failure of step b", err)
	}
	if len(ran) != 2 {
		t.Errorf("ran %v, want a and b", ran)
	}
	want := []string{"a started", "a done", "b started", "b failed"}
	for i := range want {
		if i >= len(seen) || seen[i] != want[i] {
			t.Fatalf("observer saw %v, want %v", seen, want)
		}
	}
}

func TestRunPanicIsFailure(t *testing.T) {
	err := Run(t.Context(), []Step{{Name: "x", Run: func(context.Context) error { panic("boom") }}}, nil)
	var pe *PanicError
	if !errors.As(err, &pe) || pe.Value != "boom" || len(pe.Stack) == 0 {
		t.Fatalf("got %v, want the panic as an error", err)
	}
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Run(ctx, []Step{{Name: "x", Run: func(context.Context) error { t.Error("step ran"); return nil }}}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
}

// TestReport: the observer hears how far a step is, from the step that says so and from nobody else.
func TestReport(t *testing.T) {
	var seen []string
	var kept context.Context
	err := Run(t.Context(), []Step{
		{Name: "a", Run: func(ctx context.Context) error { kept = ctx; Report(ctx, 1, 2); return nil }},
		{Name: "b", Run: func(context.Context) error { Report(context.Background(), 9, 9); return nil }},
	}, func(e Event) {
		seen = append(seen, fmt.Sprintf("%s %s %d/%d", e.Step.Name, e.State, e.Progress.Done, e.Progress.Total))
	})
	if err != nil || kept == nil {
		t.Fatal(err)
	}
	want := []string{"a started 0/0", "a moved 1/2", "a done 0/0", "b started 0/0", "b done 0/0"}
	if !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}
