// Package splash shows on the display that the installed system is starting. It does so from the hand-over, which
// replaces init, until the system says that it runs.
//
// It is a separate process: init, started once more under another name. Its root directory is that of the installed
// system. So it keeps nothing of the initramfs in use but its own program, and it finds the devices where the system
// has them. It ends when the system tells it to (End, called by "gprov-unit boot-ok", or SIGUSR1), after Patience, or
// by the signal that ends all processes at shutdown. The system's own programs can then use the display.
package splash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"gprovision/hw/host"
	"gprovision/hw/lcd"
	"gprovision/unit/state"
)

// name is the name of the process.
const name = "gprov-splash"

// Socket is where the process listens for the news that the system runs. A connection is that news. The process
// closes it once the display is free.
const Socket = "/run/gprovision/splash"

// Patience limits how long the process waits for that.
const Patience = 5 * time.Minute

// Texts on the display. Started stays there.
const (
	starting  = "OS starting..."
	preparing = "Preparing fresh OS image..."
	Started   = "OS is running"
	silent    = "OS did not say that it runs"
)

// Start starts the process for the system mounted on root. port is the serial port of the display, or "" for a
// display on USB. fresh means that this system has never run well. The process belongs to the caller until the
// hand-over replaces the caller.
func Start(ctx context.Context, root, port string, fresh bool) (*os.Process, error) {
	if err := os.MkdirAll(filepath.Dir(Socket), 0o755); err != nil {
		return nil, err
	}
	text := starting
	if fresh {
		text = preparing
	}
	return host.Background(ctx, []string{name, root, port, text})
}

// Main is the splash process if args say so. It then does not return.
func Main(args []string) {
	if len(args) == 0 || args[0] != name {
		return
	}
	if err := run(args); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func run(args []string) error {
	if len(args) != 4 {
		return errors.New("splash: wrong arguments")
	}
	root, port, text := args[1], args[2], args[3]
	_ = host.SetName(name) // better a display whose process no signal can name than no display
	_ = os.Remove(Socket)  // left by an earlier attempt in this boot
	l, err := net.Listen("unix", Socket)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := host.EnterRoot(root); err != nil {
		return err
	}
	// A system with a picture of its own may send SIGUSR1, as the original systems did.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGUSR1)
	defer stop()
	d := lcd.NewDisplay(lcd.DisplayOptions{Dial: lcd.Dialer(os.DirFS("/sys"), port), Retry: 500 * time.Millisecond})
	if err := host.Ready(); err != nil {
		return errors.Join(err, d.Close())
	}
	return show(ctx, d, l, text, Patience)
}

// show shows text on d until a connection arrives on l, ctx ends or patience runs out. It then closes d.
func show(ctx context.Context, d *lcd.Display, l net.Listener, text string, patience time.Duration) error {
	d.Show(lcd.Busy(text))
	told := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			told <- c
		}
	}()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case c := <-told:
		defer c.Close()
		d.Show(lcd.Text(Started))
	case <-ctx.Done():
	case <-t.C:
		d.Show(lcd.Text(silent))
	}
	return d.Close() // draws what was shown last
}

// End tells the process that the system runs, and returns once the display is free. It is no error if there is no
// such process.
func End(ctx context.Context) error { return end(ctx, Socket) }

func end(ctx context.Context, socket string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	if err == nil {
		defer c.Close()
		if end, ok := ctx.Deadline(); ok {
			err = c.SetDeadline(end)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, c)
		}
	}
	if err != nil {
		return fmt.Errorf("tell the display that the system runs: %w", err)
	}
	return nil
}

// Fresh reports whether the system with the mark m has never run well.
func Fresh(m state.Mark, c state.Counts) bool { return c.LastGood.Before(m.Time) }
