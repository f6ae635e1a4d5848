package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Service is a part of the server that runs for as long as the server does.
type Service struct {
	// Name is the name of the service in logs and sentences, such as "DHCP".
	Name string
	// Serve runs until its context ends. After a panic it is called again, and must reopen what it has closed.
	Serve func(ctx context.Context) error
}

// A service that panics is started again after firstDelay. The delay doubles with each further panic within window.
// After maxPanics within window the service is given up: another start would not help.
const (
	firstDelay = time.Second
	window     = time.Minute
	maxPanics  = 5
)

// ErrService is the error of a service that panics again after each start.
var ErrService = errors.New("a service panics again and again")

// Group runs services side by side. It is safe for concurrent use.
type Group struct {
	log *slog.Logger

	mu     sync.Mutex
	fallen map[string]*fall
}

// fall is the record of the panics of one service.
type fall struct {
	count int
	last  time.Time
	down  bool
}

// NewGroup returns a Group that logs to log.
func NewGroup(log *slog.Logger) *Group { return &Group{log: log, fallen: map[string]*fall{}} }

// Run runs services until ctx ends or one of them returns an error. An error ends the other services, and Run returns
// it. A service that returns nil has done its work. A service that panics is started again. If it keeps panicking,
// Run returns ErrService, so that whatever supervises the program notices.
func (g *Group) Run(ctx context.Context, services ...Service) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(services))
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(func() {
			if err := g.supervise(ctx, s); err != nil {
				errs <- err
				cancel()
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// supervise runs a service, and runs it again after a panic.
func (g *Group) supervise(ctx context.Context, s Service) error {
	var recent []time.Time
	for {
		err := Call(g.log, s.Name, func() error { return s.Serve(ctx) })
		if !errors.Is(err, ErrPanic) || ctx.Err() != nil {
			return err
		}
		now := time.Now()
		recent = append(slices.DeleteFunc(recent, func(t time.Time) bool { return now.Sub(t) >= window }), now)
		g.record(s.Name, func(f *fall) { f.count, f.last, f.down = f.count+1, now, true })
		if len(recent) >= maxPanics {
			return fmt.Errorf("%w: %s, %d times in %v", ErrService, s.Name, len(recent), window)
		}
		delay := firstDelay << (len(recent) - 1)
		g.log.Warn("service is started again", "service", s.Name, "panics", len(recent), "delay", delay.String())
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		g.record(s.Name, func(f *fall) { f.down = false })
	}
}

func (g *Group) record(name string, change func(*fall)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fallen[name] == nil {
		g.fallen[name] = &fall{}
	}
	change(g.fallen[name])
}

// Problems returns a sentence for each service that has panicked since the start, sorted by name.
func (g *Group) Problems() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for name, f := range g.fallen {
		state := "was started again"
		if f.down {
			state = "is down"
		}
		out = append(out, fmt.Sprintf("%s had an error of its own (%d since the server's start, the last at %s) and %s: see the server's log",
			name, f.count, f.last.UTC().Format("2006-01-02 15:04:05 MST"), state))
	}
	slices.Sort(out)
	return out
}
