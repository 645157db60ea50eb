export type Scale = 'fahrenheit' | 'kelvin';

export function isScale(text: string): text is Scale {
  return text === 'fahrenheit' || text === 'kelvin';
}

export function celsius(value: number, scale: Scale): number {
  const exact = scale === 'kelvin' ? value - 273.15 : ((value - 32) * 5) / 9;
  return Math.round(exact * 100) / 100;
}
