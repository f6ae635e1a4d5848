package lcd_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// A display shows a menu, and a key that is let go moves it. The display is a simulated one; lcd.Dialer finds a real one.
func ExampleDisplay() {
	sim := simulator.New(lcd.Model635)
	display := lcd.NewDisplay(lcd.DisplayOptions{Dial: func(context.Context) (io.ReadWriteCloser, string, error) {
		ours, theirs := net.Pipe()
		go func() { _ = sim.Serve(theirs) }()
		return ours, "simulator", nil
	}})
	menu := lcd.Menu{Options: []string{"Tea", "Coffee", "Water"}}
	display.Show(menu.Picture)
	screen, err := sim.Wait(context.Background(), func(s simulator.Screen) bool { return s.Contains("Water") })
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(screen.Lines()[1])
	menu.Key(lcd.KeyEvent{Key: lcd.KeyDown, Release: true}) // as they come from display.Keys()
	if err := display.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("selected:", menu.Options[menu.Selected])
	// Output:
	//  Coffee
	// selected: Coffee
}
