package console_test

import (
	"fmt"

	"gprovision/hw/console"
)

// What a terminal sends for two keys: the arrow up, and x.
func ExampleDecoder() {
	var d console.Decoder
	for _, c := range []byte("\x1b[Ax") {
		k, ok := d.Feed(c)
		switch {
		case ok && k == console.Up:
			fmt.Println("up")
		case ok:
			fmt.Printf("%c\n", k)
		}
	}
	// Output:
	// up
	// x
}

// Keys of a serial line, as they are pressed.
func ExampleOpen() {
	tty, err := console.Open("/dev/ttyS0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tty.Close()
	if err := tty.Raw(); err != nil {
		fmt.Println(err)
		return
	}
	for k := range console.Keys(tty) {
		if k == console.Escape {
			return
		}
	}
}
